-- At most CAPACITY permits in use at one time, held by gateways' workers, each a *holder* with a name.
--
-- State: a hash. Its field `total` is "TOTAL SWEPT": what all holders hold together, and when (ms) it was last
-- added up anew. Each holder has a field of its own, "COUNT SPOKEN": what it holds, and when it last said so.
-- A holder that says nothing for a while has died, and counts nothing: nobody is there to give its permits
-- back. So a take reads and writes two fields, however many holders there are, and once a second all.
-- The key expires when all holders have been silent for as long.
-- Tells remaining permits; of retry that nobody knows it (-2), and of reset nothing (0).
--
-- In memory a key's permits are those that `others` hold, the one that asks (`count`), and those that are
-- known by the `free` of whoever asks.
--
-- Given: `now`. The name of the holder that asks is the last of ARGV, in lower-case hexadecimal digits.

local call, format, match = redis.call, string.format, string.match

-- The most that a double counts exactly.
local MOST = 2 ^ 53 - 1

-- How often all holders are looked at, and how long a silent one is believed: together 20 s.
local SWEEP, SILENCE = 1000, 19000

-- How many words a command may have beside its key: of an HSET two a field.
local MOST_FIELDS = 1000

local UNKNOWN = -2

local holder = match(ARGV[#ARGV], '^%x+$')
now = (now - now % 1000) / 1000

local function terms(algorithm, _, _, capacity)
  return { algorithm = algorithm, capacity = capacity }
end

-- A count and a time, or nothing.
local function read(text)
  local count, time = match(text, '^(%d+) (%d+)$')
  if count and count + 0 <= MOST and time + 0 <= MOST then
    return count + 0, time + 0
  end
end

-- All holders, but for those that are silent. One whose last word lies further ahead than any may be
-- silent has spoken before the clock went back, and is taken to have spoken now.
local function sweep(key)
  local fields = ask('HGETALL', key)
  local silent, ahead = {}, {}
  local state = { others = 0, count = 0, swept = now, silent = silent, ahead = ahead }
  for i = 1, #fields, 2 do
    local name, count, spoken = fields[i], read(fields[i + 1])
    if not count then
      return nil
    elseif name == holder then
      state.count = spoken + SILENCE > now and count or 0
    elseif name ~= 'total' and spoken + SILENCE <= now then
      silent[#silent + 1] = name
    elseif name ~= 'total' then
      state.others = state.others + count
      if spoken > now + SILENCE then
        ahead[#ahead + 1] = name
        ahead[#ahead + 1] = format('%d %d', count, now)
      end
    end
  end
  return state
end

-- What is not a text: a hash or, as false, nothing. Nil if it is not Weir's.
local function load(key)
  if not holder then
    return nil
  end
  local fields = redis.pcall('HMGET', key, 'total', holder)
  if fields.err then
    if not string.find(fields.err, 'WRONGTYPE', 1, true) then
      -- As `ask` tells it.
      error('STORE ' .. fields.err .. ' (HMGET)', 0)
    end
    return nil
  elseif not fields[1] then
    if ask('EXISTS', key) == 0 then
      return false
    end
    return nil
  end
  local total, swept = read(fields[1])
  local count = fields[2] and read(fields[2])
  if not total or count == nil then
    return nil
  end
  count = count or 0
  if swept > now or now - swept >= SWEEP or count > total then
    return sweep(key)
  end
  return { others = total - count, count = count, swept = swept }
end

local function settle(stored, quota)
  local capacity = quota.capacity
  if not stored then
    return { others = 0, count = 0, swept = now, silent = {}, ahead = {} }, capacity
  elseif type(stored) == 'table' then
    local used = stored.others + stored.count
    if used <= MOST then
      -- That all were looked at is written down, or else who is refused would look at all each time.
      return stored, capacity - used, stored.silent and true
    end
  end
end

local function add(_, quota, free, cost)
  return math.max(free - cost, quota.capacity - MOST)
end

-- What the holder that asks holds from here on.
local function hold(state, quota, count)
  return math.max(quota.capacity - state.others - count, quota.capacity - MOST)
end

-- A receipt tells nothing: the holder's next word will, whatever it takes back here.
local function give_back(state, quota, free, cost)
  local most = quota.capacity - state.others
  if free < most then
    return math.min(free + cost, most)
  end
end

local function retry()
  return UNKNOWN
end

local function reset()
  return 0
end

local function keep(state, quota, free)
  return {
    others = state.others,
    count = quota.capacity - free - state.others,
    swept = state.swept,
    silent = state.silent,
    ahead = state.ahead,
  }
end

-- Some fields of a key at a time: no command may name more than Lua's stack holds.
local function change(command, key, fields)
  for from = 1, #fields, MOST_FIELDS do
    call(command, key, unpack(fields, from, math.min(from + MOST_FIELDS - 1, #fields)))
  end
end

-- What it writes are numbers that were checked, which cannot fail to be made.
local function save(key, state, quota, free)
  local used = quota.capacity - free
  local count = used - state.others
  local total = format('%d %d', used, state.swept)
  if count > 0 then
    call('HSET', key, 'total', total, holder, format('%d %d', count, now))
  else
    call('HSET', key, 'total', total)
    call('HDEL', key, holder)
  end
  if state.silent then
    change('HDEL', key, state.silent)
    change('HSET', key, state.ahead)
    call('PEXPIREAT', key, format('%d', now + SWEEP + SILENCE))
  end
end

return {
  terms = terms,
  load = load,
  settle = settle,
  add = add,
  hold = hold,
  give_back = give_back,
  retry = retry,
  reset = reset,
  keep = keep,
  save = save,
}
