-- What a peer of Weir's would write: fixed windows, several at once, all of them or none.
--   KEYS     the counters, each of the window that is now
--   ARGV     the window in seconds, then the limit of each key
--   reply    "REMAINING RESET": the fewest requests left, below zero if this one is refused, and
--            the seconds to the next window
local window = tonumber(ARGV[1])
local reset = window - tonumber(redis.call('TIME')[1]) % window
local least
for place, key in ipairs(KEYS) do
  local remaining = tonumber(ARGV[place + 1]) - tonumber(redis.call('GET', key) or '0') - 1
  least = math.min(least or remaining, remaining)
end
if least >= 0 then
  for _, key in ipairs(KEYS) do
    if redis.call('INCR', key) == 1 then
      redis.call('EXPIRE', key, window)
    end
  end
end
return string.format('%d %d', least, reset)
