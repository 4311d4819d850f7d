-- At most CAPACITY permits in each window, windows aligned to the Unix epoch.
--
-- State: text of eighteen digits: the window's end in seconds, ten, and the permits used in it, eight.
-- So Redis itself can count on, by INCRBY, which leaves the key's expiry as it is. What has more
-- digits is "USED END". The key expires at the window's end.
-- Tells remaining permits, retry and reset in ms: both are the window's end.
--
-- In memory only the permits are a key's own: `current` stands for every key that Redis holds for the
-- window that is now, `fresh` for those that are to be written for it.

local call, format, match = redis.call, string.format, string.match
local max, min = math.max, math.min

-- The most that a double counts exactly. A debt stops growing there.
local MOST = 2 ^ 53 - 1

-- The length of the short form, and the first END and USED that are too long for it.
local SHORT, LONG_END, LONG_USED = 18, 10 ^ 10, 10 ^ 8

local function terms(quota, now)
  local now_ms = (now - now % 1000) / 1000
  local ends = now_ms - now_ms % quota.window + quota.window
  quota.now, quota.ends = now_ms, ends
  quota.current = { ends = ends, reset = ends - now_ms, counting = true }
  quota.fresh = { ends = ends, reset = ends - now_ms }
  quota.pattern = format('^%d(%%d+)$', ends / 1000)
end

-- What a text tells: permits used, and the window's end in ms. Nothing if it is not a state of ours.
local function read(text)
  local used, ends
  if #text == SHORT then
    ends, used = match(text, '^(%d%d%d%d%d%d%d%d%d%d)(%d+)$')
  end
  if not used then
    used, ends = match(text, '^(%d+) (%d+)$')
  end
  if used and used + 0 <= MOST and ends + 0 <= MOST then
    return used + 0, ends * 1000
  end
end

local function settle(text, quota)
  local capacity = quota.capacity
  if not text then
    return quota.fresh, capacity
  end
  local count = #text == SHORT and match(text, quota.pattern)
  if count then
    return quota.current, capacity - count
  end
  local used, ends = read(text)
  if not used then
    return nil
  end
  local now, window = quota.now, quota.window
  if ends <= now then
    return quota.fresh, capacity
  elseif ends > quota.ends and ends <= now + 2 * window and ends % window == 0 then
    -- The clock went back, by a window at most.
    return { ends = ends, reset = ends - now }, capacity - used
  end
  -- A window that was cut short or drawn out by policy has not ended: its usage counts in this one.
  return quota.fresh, capacity - used, used > 0 and ends ~= quota.ends
end

local function add(_, quota, free, cost)
  return max(free - cost, quota.capacity - MOST)
end

-- Only in the window that the receipt names: the next one owes nothing.
local function give_back(state, quota, free, cost, receipt)
  local taken, window = (receipt - receipt % 1000) / 1000, quota.window
  if free < quota.capacity and taken - taken % window + window == state.ends then
    return min(free + cost, quota.capacity)
  end
end

local function retry(state)
  return state.reset
end

local function keep(state, quota, free)
  local used, ends = quota.capacity - free, state.ends / 1000
  if used < LONG_USED and ends < LONG_END then
    return format('%010d%08d', ends, used)
  end
  return format('%d %d', used, ends)
end

local function save(key, state, quota, free, taken)
  if taken and state.counting and quota.capacity - free < LONG_USED then
    call('INCRBY', key, taken == 1 and '1' or format('%d', taken))
  else
    call('SET', key, keep(state, quota, free), 'PXAT', format('%d', state.ends))
  end
end

return {
  terms = terms,
  settle = settle,
  add = add,
  give_back = give_back,
  retry = retry,
  keep = keep,
  save = save,
}
