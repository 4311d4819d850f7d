-- What a command that only reads tells. An error of it is the store's and not a fault of the script's: it
-- is thrown as a table, and names the command, which Redis before Valkey does not.

local told = redis.pcall(...)
if type(told) == 'table' and told.err then
  error({ err = told.err .. ' (' .. ... .. ')' }, 0)
end
return told
