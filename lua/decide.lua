-- Decides a batch of operations, each over several limits: all of an operation's limits pass, or
-- none of them consumes anything. Each operation sees what those before it did.
--
-- KEYS, ARGV with their units, and the reply: README.md beside this file.

-- How many values a function may give or take at once: Lua's stack ends at 8000.
local MOST_VALUES = 4000

-- What builds each algorithm; of those in use, what it has built.
local algorithms = { fixed_window, sliding_window, token_bucket, leaky_bucket }

local call, min, type, unpack = redis.call, math.min, type, unpack
local KEYS, ARGV = KEYS, ARGV

local now = clock()

-- The quotas, each with what its algorithm makes of it.
local quotas, at = {}, 1
while at <= #ARGV[1] do
  local code, limit, window, capacity, next_at = struct.unpack('>BI8I8I8', ARGV[1], at)
  local algorithm = algorithms[code]
  if type(algorithm) == 'function' then
    algorithm = algorithm()
    algorithms[code] = algorithm
  end
  quotas[#quotas + 1] = algorithm.terms(algorithm, limit, window, capacity, now)
  at = next_at
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

return ARGV[3] ~= '' and together(now, quotas, held, MOST_VALUES)
  or one_by_one(now, quotas, held, MOST_VALUES)
