-- At most LIMIT permits in each window, windows aligned to the Unix epoch.
--
-- State: record "USED START WINDOW": permits used in [START, START + WINDOW), both ms. It expires at
-- the window's end.
-- Tells remaining permits, retry and reset in ms: both are the window's end.

local floor, min = math.floor, math.min
local record = record()

-- The most that a double counts exactly. A debt stops growing there.
local MOST = 2 ^ 53 - 1

local function load(key)
  local used, start, window = record.load(key)
  return used and { used = used, start = start, window = window }
end

local function settle(stored, quota, now)
  local now_ms, window = floor(now / 1000), quota.window
  local used, at = 0, now_ms
  if stored then
    local ahead = stored.start - now_ms
    if ahead > 0 and ahead <= window then
      at = stored.start
    end
    -- A window that was cut short or drawn out by policy has not ended: its usage counts in this one.
    if at < stored.start + stored.window then
      used = stored.used
    end
  end
  local start = at - at % window
  return {
    used = used,
    start = start,
    window = window,
    ends_in = start + window - now_ms,
    moved = used > 0 and (stored.start ~= start or stored.window ~= window),
  }
end

local function fits(state, quota, cost)
  return cost <= quota.capacity - state.used
end

local function add(state, _, cost)
  state.used = min(state.used + cost, MOST)
end

-- Only in the window that the receipt names: the next one owes nothing.
local function give_back(state, _, cost, receipt)
  local taken = floor(receipt / 1000)
  if state.used == 0 or taken - taken % state.window ~= state.start then
    return false
  end
  state.used = state.used - min(cost, state.used)
  return true
end

local function tell(state, quota, cost)
  local remaining, retry = quota.capacity - state.used, 0
  if cost > quota.capacity then
    retry = -1
  elseif cost > remaining then
    retry = state.ends_in
  end
  return remaining, retry, state.used > 0 and state.ends_in or 0
end

local function save(key, state)
  record.save(key, state.used, state.start, state.window, state.start + state.window)
end

return {
  holds = 'limit',
  load = load,
  settle = settle,
  fits = fits,
  add = add,
  give_back = give_back,
  tell = tell,
  save = save,
}
