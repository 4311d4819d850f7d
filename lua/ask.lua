-- What a command that only reads tells. An error of it is the store's and not a fault of the script's: so
-- it is marked, and it names the command, which Redis before Valkey does not.

local told = redis.pcall(...)
if type(told) == 'table' and told.err then
  error('STORE ' .. told.err .. ' (' .. ... .. ')', 0)
end
return told
