-- Both buckets, exact in integers: a level that rises with every permit and falls with time. A request that
-- would raise it above CAPACITY is refused.
--
-- A token bucket's level is the tokens that are *gone*, so that a new bucket, which is no key at all, is a
-- full one, and a policy that raises CAPACITY hands out the difference at once. A leaky one's is what has
-- been poured in and not yet leaked; no key is an empty one. (Refusing only when it is full *before* the
-- request would overdraw it.)
--
-- State: text, "LEVEL TIME LIMIT WINDOW": the level at TIME (ms), in units of permit × WINDOW (ms). A
-- permit adds WINDOW units, each ms takes away LIMIT, so that LIMIT permits leak in a WINDOW and no
-- division ever rounds. It expires within a quarter of a window after the level has fallen to nothing:
-- moving the expiry costs Redis more than the write, and this way few writes have to.
-- Tells whole permits that remain; retry and reset in ms, rounded up.
--
-- In memory `level` is that of `free` permits; those that were taken since are known by the `free` of
-- whoever asks.

local call, format, match = redis.call, string.format, string.match
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

-- The most that a double counts exactly. A debt stops growing there. The longest window, ten years, in ms.
local MOST, LONGEST_WINDOW = 2 ^ 53 - 1, 315360000000

local function terms(algorithm, limit, window, capacity, now)
  local rate = format('%d %d', limit, window)
  return {
    algorithm = algorithm,
    limit = limit,
    window = window,
    capacity = capacity,
    now = (now - now % 1000) / 1000,
    full = capacity * window,
    rate = rate,
    pattern = '^(%d+) (%d+) ' .. rate .. '$',
  }
end

-- A level in another window's units. Whole permits stay whole; the fraction is rounded up, against
-- the caller. Windows are whole seconds: dividing by 1000 first keeps the product below 2^53 for
-- windows up to a month.
local function rescale(level, from, to)
  local permits = floor(level / from)
  local fraction = level - permits * from
  return min(permits * to + ceil(fraction * (to / 1000) / (from / 1000)), MOST)
end

-- How many ms until a level has fallen to nothing, rounded up. (A call of `ceil` costs more.)
local function drain(quota, level)
  local limit = quota.limit
  return (level + -level % limit) / limit
end

-- When a key of this level expires.
local function expiry(quota, level, time)
  local grain, empty = quota.window / 4, time + drain(quota, level)
  return empty - empty % grain + grain
end

local function settle(text, quota)
  local now, window = quota.now, quota.window
  if not text then
    return { level = 0, free = quota.capacity, time = now, ahead = 0 }, quota.capacity
  end
  local level, time = match(text, quota.pattern)
  local expires, moved
  if level then
    level, time = level + 0, time + 0
    if level > MOST or time > MOST then
      return nil
    end
    expires = expiry(quota, level, time)
  else
    local limit, before
    level, time, limit, before = match(text, '^(%d+) (%d+) (%d+) ([1-9]%d*)$')
    if not limit then
      return nil
    end
    level, time, before = level + 0, time + 0, before + 0
    if level > MOST or time > MOST or before > LONGEST_WINDOW or before % 1000 ~= 0 then
      return nil
    end
    if before ~= window then
      level, moved = rescale(level, before, window), true
    end
  end
  if time <= now then
    level, time = level - (now - time) * quota.limit, now
    if level < 0 then
      level = 0
    end
  elseif time - now > window then
    time, moved = now, true
  end
  local left = quota.full - level
  local free = (left - left % window) / window
  local state = { level = level, free = free, time = time, ahead = time - now, expires = expires }
  return state, free, moved and level > 0
end

local function level_at(state, quota, free)
  return state.level + (state.free - free) * quota.window
end

local function refill(state, quota, level)
  state.level, state.free = level, floor((quota.full - level) / quota.window)
  return state.free
end

local function add(state, quota, free, cost)
  return refill(state, quota, min(level_at(state, quota, free) + cost * quota.window, MOST))
end

-- What has leaked since is gone: the level never falls below nothing.
local function give_back(state, quota, free, cost)
  if free < quota.capacity then
    return refill(state, quota, max(level_at(state, quota, free) - cost * quota.window, 0))
  end
end

local function retry(state, quota, free, cost)
  local excess = level_at(state, quota, free) - (quota.capacity - cost) * quota.window
  return state.ahead + drain(quota, excess)
end

local function reset(state, quota, free)
  return state.ahead + drain(quota, level_at(state, quota, free))
end

local function keep(state, quota, free)
  return format('%d %d %s', level_at(state, quota, free), state.time, quota.rate)
end

-- What it writes are numbers that were checked, which cannot fail to be made.
local function save(key, state, quota, free, taken)
  local level, time = level_at(state, quota, free), state.time
  local text, expires = format('%d %d %s', level, time, quota.rate), expiry(quota, level, time)
  if taken and expires == state.expires then
    call('SET', key, text, 'KEEPTTL')
  else
    call('SET', key, text, 'PXAT', format('%d', expires))
  end
end

-- Whoever asks has one of their own: a bucket's key is not the other's.
return {
  terms = terms,
  settle = settle,
  add = add,
  give_back = give_back,
  retry = retry,
  reset = reset,
  keep = keep,
  save = save,
}
