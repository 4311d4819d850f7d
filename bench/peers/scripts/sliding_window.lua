-- What a peer of Weir's would write: logs of requests, several at once, all of them or none.
--   KEYS     the logs
--   ARGV     the window in seconds, then the limit of each key, then a name for the request
--   reply    "REMAINING RESET": the fewest requests left, below zero if this one is refused, and
--            the seconds until all are free again
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = tonumber(ARGV[1])
local least
for place, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window * 1000000)
  local remaining = tonumber(ARGV[place + 1]) - redis.call('ZCARD', key) - 1
  least = math.min(least or remaining, remaining)
end
if least >= 0 then
  local name = ARGV[#KEYS + 2]
  for _, key in ipairs(KEYS) do
    redis.call('ZADD', key, now, name)
    redis.call('EXPIRE', key, window + 1)
  end
end
return string.format('%d %d', least, window)
