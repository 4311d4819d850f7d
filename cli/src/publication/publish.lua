-- Publishes a policy, unless another was published since its publisher looked. What it replaces goes to
-- the front of the history, whoever wrote it.
--
-- KEYS   1  weir:policy, the hash that gateways read; weir@NAMESPACE:policy where there is a namespace
--        2  {weir:policy}:history, {weir@NAMESPACE:policy}:history, a list of JSON objects with the same fields, the newest first
-- ARGV   1  the version that the publisher saw, empty for none
--        2  its published_at, empty for none
--        3  the version to publish; empty for the first that Redis knows of, which is the Unix time in
--           seconds: a Redis that lost its data gives no number a second time
--        4  how many previous versions are kept
--        5  the document
--        6  who publishes it
--        7  a comment
--        8  the version that said the same before, where this is a rollback; else empty
-- reply  the version, or 0 where another than the publisher saw is there now
local fields = {'version', 'published_at', 'author', 'comment', 'restores', 'policy'}
local now = redis.call('HMGET', KEYS[1], unpack(fields))
if (now[1] or '') ~= ARGV[1] or (now[2] or '') ~= ARGV[2] then
  return 0
end
if now[1] then
  local previous = {}
  for i, field in ipairs(fields) do
    previous[field] = now[i] or ''
  end
  redis.call('LPUSH', KEYS[2], cjson.encode(previous))
  redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
end
local time = redis.call('TIME')
local published_at = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local version = ARGV[3] ~= '' and ARGV[3] or time[1]
redis.call('HSET', KEYS[1], 'version', version, 'published_at', published_at, 'author', ARGV[6],
  'comment', ARGV[7], 'restores', ARGV[8], 'policy', ARGV[5])
return tonumber(version)
