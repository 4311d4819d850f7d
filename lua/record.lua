-- Three integers in one string value: how fixed windows and buckets are kept.
--
-- State: "A B C", decimal, each below 2^53. What they mean is the algorithm's affair.
-- `load` gives the three, or nothing where there is no key; a value of any other shape is as foreign
-- as a key of another type, and is told in the same words.

local call, format, match, tonumber = redis.call, string.format, string.match, tonumber

-- Three integers below 2^53 have at most 16 digits each; what is longer was not written here.
local LONGEST = 3 * 16 + 2

local function load(key)
  local value = call('GET', key)
  if not value then
    return nil
  end
  local a, b, c = match(value, '^(%d+) (%d+) ([1-9]%d*)$')
  if not a or #value > LONGEST then
    error('WRONGTYPE Not a state of Weir', 0)
  end
  return tonumber(a), tonumber(b), tonumber(c)
end

-- `expires`: ms since the epoch. Absolute, so that no time passes between decision and deadline.
local function save(key, a, b, c, expires)
  -- '..' and tostring would write integers from 10^14 on as 1e+14.
  call('SET', key, format('%.0f %.0f %.0f', a, b, c), 'PXAT', format('%.0f', expires))
end

return { load = load, save = save }
