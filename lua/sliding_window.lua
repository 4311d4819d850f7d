-- At most CAPACITY permits in any (now - WINDOW, now]: an exact log of what was taken.
--
-- State: records of three doubles, BEGUN STAMP TOTAL, one for each moment at which something was taken.
-- TOTAL is what all records up to and including it took. So the usage is the difference of two totals,
-- whatever the records weigh and however many have expired unseen, and the record whose expiry frees a
-- permit is found by bisection. Before them stands a head of the same size, SPAN FORGOTTEN BASE: the
-- window (µs) that they were written for, up to which total they no longer count whatever the window
-- becomes, and the total before the first. What had expired when the newest began is forgotten too.
--
-- A short log is a text, and grows by APPEND until half of it is dead. A longer one is a list of texts,
-- of which only the last ever changes; its head is the log's, of the others' only BASE counts. The key
-- expires within a quarter of a window, or a second, of when its newest record does: few writes have to
-- move that.
-- Tells remaining permits; retry and reset in ms, rounded up.
--
-- Leased permits are used later than they are taken. STAMP is the last moment at which they can be,
-- later than BEGUN. What is taken before that moment comes joins this record, for records stay in
-- order; it counts for up to a lease's time longer than it had to. So stamps and beginnings both grow
-- from record to record, and the log's own time is that of the newest beginning.
--
-- In memory a log is `text`, a head and its newest records, and `body`, whether older ones that count
-- are left in Redis. What was taken at once and without a lead is known only by the `free` of whoever
-- asks, until it matters: then `catch_up` enters it.

local call, try, format, sub, type = redis.call, redis.pcall, string.format, string.sub, type
local pack, unpack = struct.pack, struct.unpack
local max, min = math.max, math.min

-- The most that a double counts exactly. A debt stops growing there. The longest lease, a day, in µs.
local MOST, LONGEST_LEASE = 2 ^ 53 - 1, 86400000000

-- A head or a record: what its fields are, and its bytes.
local FIELDS, SIZE = '<ddd', 24

-- The most records of a log that is one text, and of each text in a list. Redis 7 hashes every byte that
-- Lua sees, so a text should be short; but a list takes two more commands to read.
local MOST_ALONE, MOST_LISTED = 48, 16

-- No call may block Redis for long: at most so many records are rewritten, or texts trimmed, in one.
local MOST_REWRITTEN, MOST_TRIMMED = 1000, 1000

-- The expiry of a short window need not be moved more often than this, µs.
local LEAST_GRAIN = 1000000

local function terms(algorithm, _, window, capacity, now)
  local span = window * 1000
  return {
    algorithm = algorithm,
    span = span,
    capacity = capacity,
    now = now,
    grain = max(span / 4, LEAST_GRAIN),
  }
end

-- What is not a text: a list or, as false, nothing. Nil if it is not Weir's.
local function load(key)
  local text = try('LINDEX', key, '-1')
  if type(text) ~= 'table' then
    return text and { key = key, texts = 1, text = text }
  elseif not string.find(text.err, 'WRONGTYPE', 1, true) then
    -- As `ask` tells it.
    error('STORE ' .. text.err .. ' (LINDEX)', 0)
  end
end

-- One of a list's texts, if it has a head and records.
local function whole(text)
  if not text or #text < 2 * SIZE or #text % SIZE ~= 0 then
    error('ERR Malformed log', 0)
  end
  return text
end

-- The first record at or after `at` with a later stamp and a larger total than these. There is one.
local function search(text, at, cutoff, total)
  local low, high, step = at, #text / SIZE - 1, 1
  while low < high do
    local stamp, upto = unpack('<dd', text, at * SIZE + 9)
    if stamp > cutoff and upto > total then
      high = at
    else
      low = at + 1
    end
    -- It is mostly among the first.
    at = low + step - 1
    step = step + step
    if at >= high then
      at = (low + high) / 2
      at = at - at % 1
    end
  end
  return low
end

-- The first of a list's texts, but for the last `texts`, that has such a record, if any does; and its
-- place.
local function search_list(key, texts, cutoff, total)
  local low, high, at, found = 0, nil, 0, nil
  repeat
    local text = whole(ask('LINDEX', key, format('%d', at)))
    local stamp, upto = unpack('<dd', text, #text - 15)
    if stamp <= cutoff or upto <= total then
      low, high = at + 1, high or ask('LLEN', key) - texts
    else
      high, found = at, text
    end
    at = (low + high - (low + high) % 2) / 2
  until low >= high
  return found, low
end

-- When the key of a log with this newest stamp expires, µs.
local function expiry(stamp, quota)
  local grain, ends = quota.grain, stamp + quota.span
  return ends - ends % grain + grain
end

-- Whether that is when it expires with an older one, too.
local function expires_as(stored, stamp, quota)
  return stamp - stored <= (stamp + quota.span) % quota.grain
end

-- A log of `used` permits, all taken at this moment, to be used up to `lead` later.
local function begin(list, used, now, lead)
  local begun, stamp, text = 0, 0, pack(FIELDS, 0, 0, 0)
  if used > 0 then
    begun, stamp = now, now + lead
    text = text .. pack(FIELDS, begun, stamp, used)
  end
  return {
    list = list,
    text = text,
    dead = 0,
    live = 0,
    begun = begun,
    stamp = stamp,
    total = used,
    stored = false,
  }
end

local function settle(stored, quota, now)
  local capacity, span = quota.capacity, quota.span
  if not stored then
    return begin(nil, 0, now, 0), capacity
  end
  local text, list = stored, nil
  if type(stored) == 'table' then
    text, list = stored.text, stored
  end
  local size = #text
  if size < 2 * SIZE or size % SIZE ~= 0 then
    return nil
  end
  local written_for, forgotten, base = unpack(FIELDS, text)
  local begun, stamp, total = unpack(FIELDS, text, size - SIZE + 1)
  if not (base >= 0 and total > base and total > forgotten and total <= MOST and total % 1 == 0) then
    return nil
  elseif not (stamp >= begun and stamp - begun <= LONGEST_LEASE and stamp <= MOST) then
    return nil
  end
  local cutoff = (begun > now and begun or now) - span
  if stamp <= cutoff then
    return begin(list, 0, now, 0), capacity
  end
  if begun - written_for > cutoff then
    cutoff = begun - written_for
  end
  local first_text, trimmed = nil, 0
  if list and forgotten < base then
    first_text, trimmed = search_list(list.key, list.texts, cutoff, forgotten)
  end
  local place = search(first_text or text, 1, cutoff, forgotten)
  local live = unpack('<d', first_text or text, place * SIZE - 7)
  local used = total - live
  if not (live >= 0 and used > 0 and live % 1 == 0) then
    return nil
  end
  if begun - now > span then
    return begin(list, used, now, stamp - begun), capacity - used, true
  end
  local state = {
    text = text,
    dead = first_text and 0 or place - 1, -- records before the first that counts
    live = live, -- the total before that
    begun = begun, -- of the newest, as what follows
    stamp = stamp,
    total = total,
    stored = written_for == span and stamp, -- the newest in Redis, unless for another window
    list = list and {
      key = list.key,
      texts = list.texts, -- of Redis's, the last, which this text stands for
      body = first_text and true or false, -- whether any before counts
      trimmed = trimmed, -- how many do not
    },
  }
  return state, capacity - used
end

-- `lead`: how much later the permits may be used, µs.
local function enter(state, quota, cost, lead)
  local begun, text, total = max(quota.now, state.begun), state.text, state.total + cost
  local stamp = begun + lead
  if total > MOST then
    -- Totals have run out of integers: count anew, with all usage as young as this take.
    total, stamp, text = min(total - state.live, MOST), max(stamp, state.stamp), pack(FIELDS, 0, 0, 0)
    state.dead, state.live = 0, 0
    if state.list then
      state.list.body = false
    end
  elseif state.stamp >= stamp or state.begun == begun then
    begun, stamp, text = state.begun, max(state.stamp, stamp), sub(text, 1, -SIZE - 1)
  end
  state.text = text .. pack(FIELDS, begun, stamp, total)
  state.begun, state.stamp, state.total, state.changed = begun, stamp, total, true
end

local function catch_up(state, quota, free)
  local taken = quota.capacity - free - (state.total - state.live)
  if taken > 0 then
    enter(state, quota, taken, 0)
  end
end

local function remaining(state, quota)
  return quota.capacity - (state.total - state.live)
end

local function add(state, quota, free, cost, lead)
  catch_up(state, quota, free)
  enter(state, quota, cost, lead)
  return remaining(state, quota)
end

-- Puts as many of Redis's texts before this one as it stands for already.
local function lengthen(state, list)
  local from, to = format('%d', -2 * list.texts), format('%d', -list.texts - 1)
  local texts = ask('LRANGE', list.key, from, to)
  list.texts = list.texts + #texts
  list.body = state.live < unpack('<d', whole(texts[1]), 17)
  texts[#texts + 1] = state.text
  for i = 2, #texts do
    texts[i] = sub(whole(texts[i]), SIZE + 1)
  end
  state.text = table.concat(texts)
end

-- The receipt is the time of the take, which went into the newest record that had been begun by then.
-- Every later total counts it in, and is rewritten.
local function give_back(state, quota, free, cost, receipt)
  catch_up(state, quota, free)
  local list, cutoff = state.list, max(quota.now, state.begun) - quota.span
  while list and list.body and #state.text <= (MOST_REWRITTEN + 1) * SIZE do
    local begun, stamp = unpack('<dd', state.text, SIZE + 1)
    if begun <= receipt or stamp < receipt or stamp <= cutoff then
      break
    end
    lengthen(state, list)
  end
  local text = state.text
  local last = #text / SIZE - 1
  local at = last
  while at > 0 and unpack('<d', text, at * SIZE + 1) > receipt do
    at = at - 1
  end
  if at == 0 or last - at > MOST_REWRITTEN then
    return nil
  end
  local before, begun, stamp, total = unpack('<dddd', text, at * SIZE - 7)
  if stamp < receipt or total <= state.live then
    return nil
  end
  if not (before >= 0 and before < total and total <= state.total and before % 1 + total % 1 == 0) then
    error('ERR Malformed log', 0)
  end
  local returned = min(cost, total - before)
  local pieces = { sub(text, 1, at * SIZE) }
  if returned < total - before then
    pieces[2] = pack(FIELDS, begun, stamp, total - returned)
  end
  for i = at + 1, last do
    begun, stamp, total = unpack(FIELDS, text, i * SIZE + 1)
    pieces[#pieces + 1] = pack(FIELDS, begun, stamp, total - returned)
  end
  state.text, state.total, state.changed = table.concat(pieces), state.total - returned, true
  if #state.text == SIZE and list and list.body then
    lengthen(state, list)
  end
  state.begun, state.stamp = unpack('<dd', state.text, #state.text - SIZE + 1)
  return remaining(state, quota)
end

-- Until that record has expired which the permits reach into that are to be free.
local function retry(state, quota, free, cost)
  catch_up(state, quota, free)
  local text, from, list = state.text, state.dead + 1, state.list
  local before = state.live + cost - remaining(state, quota) - 1
  if list and list.body and before < unpack('<d', text, 17) then
    text, from = search_list(list.key, list.texts, 0, before), 1
  end
  local stamp = unpack('<d', text, search(text, from, 0, before) * SIZE + 9)
  if not (stamp > 0 and stamp <= state.stamp) then
    error('ERR Malformed log', 0)
  end
  local left = stamp + quota.span - quota.now
  return (left + -left % 1000) / 1000
end

-- What was taken since is the newest, unless a lease ends later.
local function reset(state, quota, free)
  local stamp, now = state.stamp, quota.now
  if now > stamp and free < quota.capacity - state.total + state.live then
    stamp = now
  end
  local left = stamp + quota.span - now
  return (left + -left % 1000) / 1000
end

-- A text of what stands from the `first` record up to this byte.
local function written(state, quota, first, last)
  local text = state.text
  local head = pack(FIELDS, quota.span, state.live, unpack('<d', text, first * SIZE - 7))
  return head .. sub(text, first * SIZE + 1, last)
end

local function keep(state, quota, free)
  catch_up(state, quota, free)
  local list, text = state.list, written(state, quota, state.dead + 1)
  return list and { key = list.key, texts = list.texts, text = text } or text
end

-- When its key expires, in words for Redis.
local function ends(state, quota)
  return format('%d', expiry(state.stamp, quota) / 1000)
end

-- What `save` writes, made before anything is written. `taken` permits are all that has changed, if told.
-- From here on `text` is what is written, `stored` by which command, of a list that is made or grows by
-- RPUSH, and `stamp` when the key expires, or nothing if that stays.
local function prepare(state, quota, free, taken)
  local list, stored, now = state.list, taken and state.stored, quota.now
  if stored and not (list or state.changed) and now > stored then
    local total, records = quota.capacity - free + state.live, #state.text / SIZE - 1
    if total <= MOST and records < MOST_ALONE and 2 * state.dead <= records + 8 then
      -- What was merely taken from a short log, where the text that Redis has stays as it is.
      state.text, state.stored, state.stamp = pack(FIELDS, now, now, total), 'APPEND', now
      state.stamp = not expires_as(stored, now, quota) and ends(state, quota)
      return
    end
  end

  catch_up(state, quota, free)
  local first, last, body = state.dead + 1, #state.text / SIZE - 1, list and list.body
  local stays = stored and expires_as(stored, state.stamp, quota)
  local most = MOST_LISTED
  if not body and last - first < MOST_ALONE then
    state.text, state.stored = written(state, quota, first), 'SET'
  elseif body and list.trimmed == 0 and list.texts == 1 and last <= most then
    state.text, state.stored = written(state, quota, first), 'LSET'
  else
    local texts = {}
    for from = first, last, most do
      texts[#texts + 1] = written(state, quota, from, (from + most) * SIZE)
    end
    state.text, state.stored = texts, 'RPUSH'
    if body then
      list.first, list.last = format('%d', min(list.trimmed, MOST_TRIMMED)), format('%d', -list.texts - 1)
    else
      stays = false
    end
  end
  state.stamp = not stays and ends(state, quota)
end

local function save(key, state)
  local how, text, stamp = state.stored, state.text, state.stamp
  if how == 'SET' then
    if stamp then
      call('SET', key, text, 'PXAT', stamp)
    else
      call('SET', key, text, 'KEEPTTL')
    end
    return
  elseif how == 'APPEND' then
    call('APPEND', key, text)
  elseif how == 'LSET' then
    call('LSET', key, '-1', text)
  else
    local list = state.list
    if list and list.body then
      call('LTRIM', key, list.first, list.last)
    else
      call('UNLINK', key)
    end
    for i = 1, #text do
      call('RPUSH', key, text[i])
    end
  end
  if stamp then
    call('PEXPIREAT', key, stamp)
  end
end

return {
  terms = terms,
  load = load,
  settle = settle,
  add = add,
  give_back = give_back,
  retry = retry,
  reset = reset,
  keep = keep,
  prepare = prepare,
  save = save,
}
