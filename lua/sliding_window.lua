-- At most CAPACITY permits in any (now - WINDOW, now]: an exact log of what was taken.
--
-- State: a sorted set. Score: the stamp, µs, one entry for each. Member: "TOTAL:COST", the permits
-- taken at this stamp and the total of all entries up to and including it. So the usage is the
-- difference of two totals, whatever the entries weigh and however many have expired unseen, and
-- the entry whose expiry frees a permit is found by bisection. Expires when the newest entry does.
-- Tells remaining permits; retry and reset in ms, rounded up.
--
-- Leased permits are used later than they are taken. They are stamped with the last moment at which
-- they can be, LEAD µs after the entry was begun: "TOTAL:COST:LEAD". What is taken before that moment
-- comes joins this entry, for entries stay in order; it counts for up to LEAD longer than it had to.
-- So stamps and beginnings both grow from entry to entry, and the log's own time is that of the
-- newest beginning.
--
-- In memory a log is `tail`, its newest entries, and `body`, whether older ones are left in Redis.
-- Only the tail ever changes: takes merge into it or extend it. What was taken at once and without a
-- lead is known only by the `free` of whoever asks, until it matters: then `catch_up` enters it.

local call, format, match = redis.call, string.format, string.match
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

-- The most that a double counts exactly. A debt stops growing there.
local MOST = 2 ^ 53 - 1

-- No call may block Redis for long: at most so many entries are trimmed or rewritten in one.
local MOST_ENTRIES = 1000

-- The entry at `i` of a reply that was asked for WITHSCORES, or nil.
local function entry(reply, i)
  local member = reply[i]
  if not member then
    return nil
  end
  local lead
  local total, cost = match(member, '^(%d+):(%d+)$')
  if not total then
    total, cost, lead = match(member, '^(%d+):(%d+):(%d+)$')
  end
  if not total then
    error('WRONGTYPE Not a log of Weir', 0)
  end
  -- Arithmetic makes numbers of digits for less than tonumber.
  local stamp = reply[i + 1] + 0
  return {
    stamp = stamp,
    begun = lead and stamp - lead or stamp,
    total = total + 0,
    cost = cost + 0,
    member = member,
  }
end

local function load(key)
  local newest = entry(call('ZRANGE', key, '-1', '-1', 'WITHSCORES'), 1)
  if not newest then
    return nil
  end
  return {
    key = key,
    existed = true,
    oldest = entry(call('ZRANGE', key, '0', '0', 'WITHSCORES'), 1),
    body = true,
    tail = { newest },
    from = newest.stamp, -- the tail stands for all of Redis's entries from here on
    loaded = 1, -- how many these are
    gone = {}, -- members of these that are no more
    cutoff = 0, -- entries up to here are forgotten, even if the window grows
  }
end

-- The oldest entry after `cutoff`. Its own cost may be out of date if the tail holds it too, but
-- never its base: what lies before it does not change.
local function first_live(log, cutoff)
  local tail = log.tail
  if log.body and log.from > cutoff then
    if log.oldest.stamp > cutoff then
      return log.oldest
    end
    local after = format('(%d', cutoff)
    return entry(call('ZRANGEBYSCORE', log.key, after, '+inf', 'WITHSCORES', 'LIMIT', '0', '1'), 1)
  end
  for i = 1, #tail do
    if tail[i].stamp > cutoff then
      return tail[i]
    end
  end
end

local function terms(algorithm, _, window, capacity)
  return { algorithm = algorithm, window = window, capacity = capacity }
end

-- A log of `used` permits, all taken at this moment, to be used up to `lead` later.
local function begin(existed, used, now, window, lead)
  local tail = {}
  if used > 0 then
    tail[1] = { stamp = now + lead, begun = now, total = used, cost = used, changed = true }
  end
  return {
    existed = existed,
    body = false,
    tail = tail,
    gone = {},
    cutoff = now - window,
    base = 0,
    used = used,
    at = now,
    now = now,
    window = window,
  }
end

local function settle(stored, quota, now)
  local window = quota.window * 1000
  local newest, existed = stored and stored.tail[#stored.tail], stored and stored.existed
  local capacity = quota.capacity
  if not newest then
    return begin(existed, 0, now, window, 0), capacity
  end
  local at = max(now, newest.begun)
  local cutoff = max(at - window, stored.cutoff)
  local first = first_live(stored, cutoff)
  if not first then
    return begin(existed, 0, now, window, 0), capacity
  end
  local base = first.total - first.cost
  local used = newest.total - base
  if at - now > window then
    return begin(existed, used, now, window, newest.stamp - newest.begun), capacity - used, used > 0
  end
  local state = {
    key = stored.key,
    existed = existed,
    oldest = stored.oldest,
    body = stored.body,
    tail = stored.tail,
    from = stored.from,
    loaded = stored.loaded,
    gone = stored.gone,
    cutoff = cutoff,
    first = first,
    base = base,
    used = used,
    at = at,
    now = now,
    window = window,
  }
  return state, capacity - used
end

-- `lead`: how much later the permits may be used, µs.
local function enter(state, cost, lead)
  local tail, at = state.tail, state.at
  local newest, stamp = tail[#tail], at + lead
  local total = (newest and newest.total or 0) + cost
  state.used = min(state.used + cost, MOST)
  if total > MOST then
    -- Totals have run out of integers: count anew, with all usage as young as this take.
    state.body, state.base, state.gone = false, 0, {}
    stamp = newest and max(stamp, newest.stamp) or stamp
    state.tail =
      { { stamp = stamp, begun = at, total = state.used, cost = state.used, changed = true } }
  elseif newest and (newest.stamp >= stamp or newest.begun == at) then
    newest.stamp = max(newest.stamp, stamp)
    newest.total, newest.cost, newest.changed = total, newest.cost + cost, true
  else
    tail[#tail + 1] = { stamp = stamp, begun = at, total = total, cost = cost, changed = true }
  end
end

local function catch_up(state, quota, free)
  local taken = quota.capacity - free - state.used
  if taken > 0 then
    enter(state, taken, 0)
  end
end

local function add(state, quota, free, cost, lead)
  catch_up(state, quota, free)
  enter(state, cost, lead)
  return quota.capacity - state.used
end

-- Brings what was taken at this time, and all that follows, into the tail. False if that is too much.
local function reach(state, taken)
  local tail, first = state.tail, max(taken, state.cutoff + 1)
  if not state.body or first >= state.from or taken >= tail[1].begun then
    return true
  end
  local from, to = format('%d', first), format('(%d', state.from)
  local most = format('%d', MOST_ENTRIES + 1)
  local reply = call('ZRANGEBYSCORE', state.key, from, to, 'WITHSCORES', 'LIMIT', '0', most)
  if #reply > 2 * MOST_ENTRIES then
    return false
  end
  local longer = {}
  for i = 1, #reply, 2 do
    longer[#longer + 1] = entry(reply, i)
  end
  state.loaded = state.loaded + #longer
  for i = 1, #tail do
    longer[#longer + 1] = tail[i]
  end
  state.tail, state.from = longer, first
  return true
end

-- The receipt is the time of the take, which went into the newest entry that had been begun by then.
-- Every later total counts it in, and is rewritten.
local function give_back(state, quota, free, cost, receipt)
  catch_up(state, quota, free)
  if state.used == 0 or not reach(state, receipt) then
    return nil
  end
  local tail, at = state.tail, #state.tail
  while at > 0 and tail[at].begun > receipt do
    at = at - 1
  end
  if at == 0 or tail[at].stamp < receipt or tail[at].stamp <= state.cutoff then
    return nil
  end
  local taken = tail[at]
  local returned = min(cost, taken.cost)
  for i = at, #tail do
    tail[i].total, tail[i].changed = tail[i].total - returned, true
  end
  taken.cost = taken.cost - returned
  state.used = state.used - returned
  if taken.cost == 0 then
    state.gone[#state.gone + 1] = taken.member
    table.remove(tail, at)
  end
  if #tail == 0 and state.used > 0 then
    local before = format('(%d', state.from)
    local reply = call('ZREVRANGEBYSCORE', state.key, before, '-inf', 'WITHSCORES', 'LIMIT', '0', '1')
    tail[1] = entry(reply, 1)
    state.from, state.loaded = tail[1].stamp, state.loaded + 1
  end
  return quota.capacity - state.used
end

-- The stamp of the first entry whose total reaches `total`: its expiry frees all up to there.
local function reaching(state, total)
  local tail, first = state.tail, state.first
  if not state.body or tail[1].total - tail[1].cost < total then
    for i = 1, #tail do
      if tail[i].total >= total then
        return tail[i].stamp
      end
    end
  end
  if first.total >= total then
    return first.stamp
  end
  local key, low = state.key, 0
  if state.oldest.stamp <= state.cutoff then
    low = call('ZCOUNT', key, '-inf', format('%d', state.cutoff))
  end
  -- As each entry weighs at least 1, it is no later than this; where each weighs 1, it is this.
  local high = min(low + total - state.base, call('ZCARD', key) - state.loaded) - 1
  local rank = high
  while low <= high do
    local at = format('%d', rank)
    local probe = entry(call('ZRANGE', key, at, at, 'WITHSCORES'), 1)
    if probe.total < total then
      low = rank + 1
    elseif probe.total - probe.cost >= total then
      high = rank - 1
    else
      return probe.stamp
    end
    rank = floor((low + high) / 2)
  end
  error('ERR Totals of a log are out of order', 0)
end

local function retry(state, quota, free, cost)
  catch_up(state, quota, free)
  local stamp = reaching(state, state.base + state.used + cost - quota.capacity)
  return ceil((stamp + state.window - state.now) / 1000)
end

local function reset(state, quota, free)
  catch_up(state, quota, free)
  return ceil((state.tail[#state.tail].stamp + state.window - state.now) / 1000)
end

local function keep(state, quota, free)
  catch_up(state, quota, free)
  return state
end

local function trim(key, state)
  local oldest, upto = state.oldest, format('%d', state.cutoff)
  if oldest.stamp > state.cutoff then
    return
  end
  -- As each entry weighs at least 1, their weight bounds their number.
  if state.base - (oldest.total - oldest.cost) <= MOST_ENTRIES then
    call('ZREMRANGEBYSCORE', key, '-inf', upto)
  else
    local last = min(call('ZCOUNT', key, '-inf', upto), MOST_ENTRIES) - 1
    call('ZREMRANGEBYRANK', key, '0', format('%d', last))
  end
end

local function save(key, state, quota, free)
  catch_up(state, quota, free)
  local tail, gone, fresh = state.tail, state.gone, {}
  if state.existed and not state.body then
    call('UNLINK', key)
  end
  for i = 1, #tail do
    local changed = tail[i]
    if changed.changed then
      if changed.member then
        gone[#gone + 1] = changed.member
      end
      local stamp, lead = changed.stamp, changed.stamp - changed.begun
      fresh[#fresh + 1] = format('%d', stamp)
      fresh[#fresh + 1] = lead == 0 and format('%d:%d', changed.total, changed.cost)
        or format('%d:%d:%d', changed.total, changed.cost, lead)
    end
  end
  if #gone > 0 then
    call('ZREM', key, unpack(gone))
  end
  if #fresh > 0 then
    call('ZADD', key, unpack(fresh))
  end
  if state.body then
    trim(key, state)
  end
  call('PEXPIREAT', key, format('%d', ceil((tail[#tail].stamp + state.window) / 1000)))
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
  save = save,
}
