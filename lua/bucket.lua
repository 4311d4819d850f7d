-- The arithmetic of both buckets, exact in integers: a level that rises with every permit and falls
-- with time.
--
-- State: record "USED TIME WINDOW": the level at TIME (ms), in units of permit × WINDOW (ms). A
-- permit adds WINDOW units, each ms takes away LIMIT, so that LIMIT permits leak in a WINDOW and no
-- division ever rounds. It expires when the level has fallen to nothing.
-- Tells whole permits that remain; retry and reset in ms, rounded up.

local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min
local record = record()

-- The most that a double counts exactly. A debt stops growing there.
local MOST = 2 ^ 53 - 1

local function load(key)
  local used, time, window = record.load(key)
  return used and { used = used, time = time, window = window }
end

-- A level in another window's units. Whole permits stay whole; the fraction is rounded up, against
-- the caller. Windows are whole seconds: dividing by 1000 first keeps the product below 2^53 for
-- windows up to a month.
local function rescale(used, from, to)
  local permits = floor(used / from)
  local fraction = used - permits * from
  return min(permits * to + ceil(fraction * (to / 1000) / (from / 1000)), MOST)
end

local function settle(stored, quota, now)
  local now_ms, window = floor(now / 1000), quota.window
  if not stored then
    return { used = 0, time = now_ms, window = window, limit = quota.limit, ahead = 0, moved = false }
  end
  local used, time, moved = stored.used, stored.time, false
  if stored.window ~= window then
    used, moved = rescale(used, stored.window, window), true
  end
  if time <= now_ms then
    used, time = max(used - (now_ms - time) * quota.limit, 0), now_ms
  elseif time - now_ms > window then
    time, moved = now_ms, true
  end
  return {
    used = used,
    time = time,
    window = window,
    limit = quota.limit,
    ahead = time - now_ms,
    moved = moved and used > 0,
  }
end

local function fits(state, quota, cost)
  return cost <= quota.capacity and state.used <= (quota.capacity - cost) * state.window
end

local function add(state, _, cost)
  state.used = min(state.used + cost * state.window, MOST)
end

-- What has leaked since is gone: the level never falls below nothing.
local function give_back(state, _, cost)
  if state.used == 0 then
    return false
  end
  state.used = max(state.used - cost * state.window, 0)
  return true
end

local function tell(state, quota, cost)
  local used, window, limit, capacity = state.used, state.window, state.limit, quota.capacity
  local retry, reset = 0, 0
  if cost > capacity then
    retry = -1
  else
    local excess = used - (capacity - cost) * window
    if excess > 0 then
      retry = state.ahead + ceil(excess / limit)
    end
  end
  if used > 0 then
    reset = state.ahead + ceil(used / limit)
  end
  return floor((capacity * window - used) / window), retry, reset
end

local function save(key, state)
  record.save(key, state.used, state.time, state.window, state.time + ceil(state.used / state.limit))
end

-- The bucket whose size is the quota's `holds`: 'limit' or 'capacity'.
return function(holds)
  return {
    holds = holds,
    load = load,
    settle = settle,
    fits = fits,
    add = add,
    give_back = give_back,
    tell = tell,
    save = save,
  }
end
