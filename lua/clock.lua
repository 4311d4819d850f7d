-- The time, by Redis's own clock: gateways disagree with each other, one Redis does not.
-- Microseconds since the Unix epoch, an integer.

local time = redis.call('TIME')
return time[1] * 1000000 + time[2]
