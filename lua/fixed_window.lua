-- At most CAPACITY permits in each window, windows aligned to the Unix epoch or to a calendar.
--
-- State: one number, in text: the window's end in seconds, and in its last six digits the permits used
-- in that window. So Redis itself can count on, by INCRBY, which leaves the key's expiry as it is; and
-- it is below 2^53. Where six digits are too few it is "USED END". The key expires at the window's end.
-- Tells remaining permits, retry and reset in ms: both are the window's end.
--
-- In memory a key's window is the quota itself, for only the permits are its own; unless the clock went
-- back.

-- What every call needs. What few need they find themselves: each name that functions share costs a call
-- some 500 instructions.
local call, format, tonumber, try = redis.call, string.format, tonumber, redis.pcall

-- The most that a double counts exactly. A debt stops growing there.
local MOST = 2 ^ 53 - 1

-- The first USED that is too long to stand behind END.
local LONG_USED = 10 ^ 6

local function terms(algorithm, _, window, capacity, now, calendar)
  local now_ms = (now - now % 1000) / 1000
  local ends = end_of(now_ms, window, calendar)
  local quota = {
    algorithm = algorithm,
    window = window,
    capacity = capacity,
    now = now_ms,
    ends = ends,
    reset = ends - now_ms,
    zero = ends / 1000 * LONG_USED,
  }
  if calendar then
    quota.calendar = calendar
  end
  return quota
end

-- What a text tells: permits used, and the window's end in ms. Nothing if it is not a state of ours.
local function read(text)
  local match = string.match
  local used, ends = match(text, '^(%d+) (%d+)$')
  if not used then
    ends, used = match(text, '^([1-9]%d*)(%d%d%d%d%d%d)$')
  end
  if used and used + 0 <= MOST and ends * 1000 <= MOST then
    return used + 0, ends * 1000
  end
end

local function settle(text, quota)
  local capacity = quota.capacity
  if not text then
    return quota, capacity
  end
  -- What `read` would tell of a key in use, for less.
  local count = (tonumber(text) or 0) - quota.zero
  if count > 0 and count < LONG_USED and count % 1 == 0 then
    return quota, capacity - count
  end
  local used, ends = read(text)
  if not used then
    return nil
  end
  local now, window = quota.now, quota.window
  if ends <= now then
    return quota, capacity
  elseif ends > quota.ends and ends <= now + 2 * window and end_of(ends - 1, window, quota.calendar) == ends then
    -- The clock went back, by a window at most.
    return { ends = ends, reset = ends - now }, capacity - used
  end
  -- A window that was cut short or drawn out by policy has not ended: its usage counts in this one.
  return quota, capacity - used, used > 0 and ends ~= quota.ends
end

local function add(_, quota, free, cost)
  return math.max(free - cost, quota.capacity - MOST)
end

-- Only in the window that the receipt names: the next one owes nothing.
local function give_back(state, quota, free, cost, receipt)
  local taken = (receipt - receipt % 1000) / 1000
  if free < quota.capacity and end_of(taken, quota.window, quota.calendar) == state.ends then
    return math.min(free + cost, quota.capacity)
  end
end

local function retry(state)
  return state.reset
end

local function keep(state, quota, free)
  local used, ends = quota.capacity - free, state.ends / 1000
  -- The first END that USED has no place behind: the number would not be exact.
  local LONG_END = 9 * 10 ^ 9
  if used < LONG_USED and ends < LONG_END then
    return format('%d', ends * LONG_USED + used)
  end
  return format('%d %d', used, ends)
end

-- What it writes are numbers that were checked, which cannot fail to be made.
local function save(key, state, quota, free, taken)
  local used = quota.capacity - free
  if taken and used < LONG_USED then
    local told = try('INCRBY', key, taken == 1 and '1' or format('%d', taken))
    if told == quota.zero + used then
      return
    end
    -- The text was of another window, or a number to Lua alone; or Redis writes nothing and says so.
  end
  call('SET', key, keep(state, quota, free), 'PXAT', format('%d', state.ends))
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
