-- As much of a Redis client as a limiter needs: one EVALSHA on a pooled connection. Debian has no
-- client for nginx, and a whole one could only cost more.
local M = {}

local function open(host, port)
  local socket = ngx.socket.tcp()
  socket:settimeouts(1000, 1000, 1000)
  local ok, problem = socket:connect(host, port)
  if not ok then
    return nil, problem
  end
  return socket
end

-- One command; its reply if it is a string, else nothing and what Redis said.
local function call(socket, words)
  local parts = { '*', #words, '\r\n' }
  for _, word in ipairs(words) do
    word = tostring(word)
    parts[#parts + 1] = '$' .. #word .. '\r\n'
    parts[#parts + 1] = word
    parts[#parts + 1] = '\r\n'
  end
  local sent, problem = socket:send(parts)
  if not sent then
    return nil, problem
  end
  local line, failure = socket:receive('*l')
  if not line then
    return nil, failure
  end
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == '$' then
    return socket:receive(tonumber(rest) + 2)
  end
  return nil, rest
end

-- Runs a script by its hash, and by its text where Redis does not know it yet.
function M.run(host, port, script, hash, keys, arguments)
  local socket, problem = open(host, port)
  if not socket then
    return nil, problem
  end
  local words = { 'EVALSHA', hash, #keys }
  for _, key in ipairs(keys) do words[#words + 1] = key end
  for _, argument in ipairs(arguments) do words[#words + 1] = argument end
  local reply, failure = call(socket, words)
  if not reply and failure and failure:find('^NOSCRIPT') then
    words[1], words[2] = 'EVAL', script
    reply, failure = call(socket, words)
  end
  if reply then
    socket:setkeepalive(60000, 1024)
  else
    socket:close()
  end
  return reply, failure
end

return M
