-- The tests' clock: whatever the test says it is, in microseconds since the epoch.

return tonumber(redis.call('GET', 'weir:test:clock'))
