-- Decides a batch of operations, each over several limits: all of an operation's limits pass, or
-- none of them consumes anything. Each operation sees what those before it did.
--
-- All is decided, and every text that could fail to be made is made, before the first write. What fails
-- until then is the fault of one operation or of one key, and is left out when the batch is decided
-- again; or it is an error of Redis's, and then it is the reply.
--
-- KEYS, ARGV with their units, and the reply: README.md beside this file.

-- How many values a function may give or take at once: Lua's stack ends at 8000.
local MOST_VALUES = 4000

-- The most that a double counts exactly. The longest window, ten years, in ms.
local MOST, LONGEST_WINDOW = 2 ^ 53 - 1, 315360000000

-- A quota's bytes.
local QUOTA, QUOTA_SIZE = '>BI8I8I8', 25

-- So many faults are looked for one after the other; with one more nothing of the batch is decided.
local MOST_FAULTS = 8

-- What builds each algorithm; of those in use, what it has built.
local algorithms = { fixed_window, sliding_window, token_bucket, leaky_bucket }

local call, min, type, unpack = redis.call, math.min, type, unpack
local KEYS, ARGV = KEYS, ARGV

local now = clock()

-- The quotas, each with what its algorithm makes of it; false where its numbers are out of range.
local quotas, size = {}, #ARGV[1]
if size % QUOTA_SIZE ~= 0 then
  return { err = 'ERR Malformed quotas' }
end
for at = 1, size, QUOTA_SIZE do
  local code, limit, window, capacity = struct.unpack(QUOTA, ARGV[1], at)
  local algorithm = algorithms[code]
  if type(algorithm) == 'function' then
    algorithm = algorithm()
    algorithms[code] = algorithm
  end
  local sound = algorithm and window >= 1000 and window <= LONGEST_WINDOW and window % 1000 == 0
  sound = sound and limit >= 1 and capacity >= 1 and limit * window <= MOST and capacity * window <= MOST
  quotas[#quotas + 1] = sound and algorithm.terms(algorithm, limit, window, capacity, now) or false
end

-- What Redis holds: of each key a text, or false.
local held = {}
for from = 1, #KEYS, MOST_VALUES do
  local values = call('MGET', unpack(KEYS, from, min(from + MOST_VALUES - 1, #KEYS)))
  if from == 1 then
    held = values
  else
    for i = 1, #values do
      held[from + i - 1] = values[i]
    end
  end
end

-- `pcall` makes a text of an error that is a table, and a table is what tells that it is Redis's.
local function as_it_is(fault)
  return fault
end

if ARGV[3] ~= '' then
  local sound, reply, write = xpcall(function()
    return together(now, quotas, held, MOST_VALUES)
  end, as_it_is)
  if sound and reply then
    write()
    return reply
  elseif not sound and type(reply) == 'table' then
    return reply
  end
  -- Else one by one, which tells what is at fault.
end

-- What is at fault, and left out: operations by their place in ARGV[2], keys by number, or all there is.
-- What is at hand, an operation or a key or both. And what Redis held of the keys of which `held` was
-- overwritten.
local none = {}
local faults = { operations = none, keys = none }
local count, suspects = 0, nil

-- Whether what was at hand is left out from here on. A key is at fault at the second operation that fails
-- with it, or where it cannot be told what to write there: else what one operation asks might spoil all
-- that share its key.
local function blame()
  local operation, key = faults.operation, faults.key
  if faults.all or not (operation or key) then
    return false
  elseif count == 0 then
    faults.operations, faults.keys, suspects = {}, {}, {}
  end
  count = count + 1
  if count > MOST_FAULTS then
    faults.all = true
  elseif not operation or suspects[key] then
    faults.keys[key] = true
  else
    faults.operations[operation] = true
    if key then
      suspects[key] = true
    end
  end
  for k, text in pairs(faults.read or none) do
    held[k] = text
  end
  faults.read = nil
  return true
end

repeat
  local sound, reply, write = xpcall(function()
    return one_by_one(now, quotas, held, MOST_VALUES, faults)
  end, as_it_is)
  if sound then
    write()
    return reply
  elseif type(reply) == 'table' then
    return reply
  end
  if not blame() then
    return { err = reply }
  end
until false
