-- The access phase of a limited request: one script call for its three limits.
local redis = require 'redis'
local settings = require 'settings'

local headers = ngx.req.get_headers()
local user, address = headers['x-user-id'], ngx.var.remote_addr
local keys, arguments
if settings.algorithm == 'fixed_window' then
  local window = math.floor(ngx.time() / settings.window)
  keys = {
    'g:' .. window,
    'u:' .. user .. ':' .. window,
    'a:' .. address .. ':' .. window,
  }
  arguments = { settings.window, settings.limit, settings.user_limit, settings.limit }
else
  keys = { 'g', 'u:' .. user, 'a:' .. address }
  arguments = {
    settings.window, settings.limit, settings.user_limit, settings.limit,
    ngx.var.connection .. ':' .. ngx.var.connection_requests,
  }
end

local reply, problem =
  redis.run(settings.redis_host, settings.redis_port, settings.script, settings.hash, keys, arguments)
if not reply then
  ngx.log(ngx.ERR, 'redis: ', problem)
  return ngx.exit(503)
end
local remaining, reset = reply:match('^(-?%d+) (%d+)')
ngx.header['x-ratelimit-limit'] = settings.user_limit
ngx.header['x-ratelimit-remaining'] = math.max(tonumber(remaining), 0)
ngx.header['x-ratelimit-reset'] = reset
if tonumber(remaining) < 0 then
  ngx.status = 429
  ngx.header.content_type = 'application/json'
  ngx.header['retry-after'] = reset
  local body = '{"error":"Rate limit exceeded"}'
  ngx.header.content_length = #body
  ngx.print(body)
  return ngx.exit(429)
end
