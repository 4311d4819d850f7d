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
local algorithms = { fixed_window, sliding_window, bucket, bucket, concurrency }

local call, min, type, unpack = redis.call, math.min, type, unpack
local KEYS, ARGV = KEYS, ARGV

local now = clock()

-- The quotas, each with what its algorithm makes of it.
local quotas, size = {}, #ARGV[1]
if size % QUOTA_SIZE ~= 0 then
  return { err = 'ERR Malformed quotas' }
end
for at = 1, size, QUOTA_SIZE do
  local code, limit, window, capacity = struct.unpack(QUOTA, ARGV[1], at)
  local algorithm = algorithms[code]
  if type(algorithm) == 'function' then
    algorithm = algorithm(now)
    algorithms[code] = algorithm
  end
  local sound, calendar = algorithm and window >= 1000 and window % 1000 == 0, nil
  if window > LONGEST_WINDOW then
    -- Longer than any, or else its bytes are a calendar's: so who has none pays nothing for it.
    local unit, offset_min = struct.unpack('>Bi2', ARGV[1], at + 9)
    window = code == 1 and ({ 3600000, 86400000, 604800000, 2678400000 })[unit]
    sound = window and offset_min >= -12 * 60 and offset_min <= 14 * 60
    calendar = { unit = unit, ahead = offset_min * 60000 }
  end
  sound = sound and limit >= 1 and capacity >= 1 and limit * window <= MOST and capacity * window <= MOST
  -- By a quota whose numbers are out of range no key can be read.
  quotas[#quotas + 1] = sound and algorithm.terms(algorithm, limit, window, capacity, now, calendar)
    or { algorithm = { settle = function() end } }
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

if ARGV[3] ~= '' then
  local sound, reply, states, left, totals = pcall(together, now, quotas, held, MOST_VALUES)
  if sound and reply then
    for k = 1, #KEYS do
      local quota, taken = quotas[totals[2 * k]], held[k] and totals[2 * k + 1]
      quota.algorithm.save(KEYS[k], states[k], quota, left[2 * k + 1], taken)
    end
    return reply
  end
  -- Else one by one, which tells what is at fault.
end

-- What is at fault, and left out: operations by their place in ARGV[2], or all there is. `at_hand` tells
-- what is at hand, an operation or a key or both; `read` is what Redis held of the keys of which `held`
-- was overwritten. A key at fault holds what nobody can read.
local none, unreadable = {}, ''
local faults = { operations = none }
local count, keys, suspects = 0, nil, nil

-- Whether what was at hand is left out from here on. A key is at fault if it says so, at the second
-- operation that fails with it, or where it cannot be told what to write there: else what one operation
-- asks might spoil all that share its key.
local function blame(fault)
  local operation, key = faults.at_hand()
  if faults.all or not (operation or key) then
    return false
  elseif count == 0 then
    faults.operations, keys, suspects = {}, {}, {}
  end
  count = count + 1
  if count > MOST_FAULTS then
    faults.all = true
  elseif not operation or suspects[key] or key and fault == 'ERR Malformed log' then
    keys[key] = true
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
  for k in pairs(keys) do
    held[k] = unreadable
  end
  return true
end

repeat
  local sound, reply, write = pcall(one_by_one, now, quotas, held, MOST_VALUES, faults)
  if sound then
    if write then
      write()
    end
    return reply
  end
  -- An error of Redis's, by `ask`.
  local error_of_redis = string.match(reply, '^STORE (.*)')
  if error_of_redis or not blame(reply) then
    return { err = error_of_redis or reply }
  end
until false
