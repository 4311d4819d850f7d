-- Decides takes of which all pass, with room to spare: then no operation's place in the batch matters, and
-- each key loses at once what all of them take. That is what almost all batches are, and deciding them
-- one by one costs Redis twice as much.
--
-- Returns nothing, and has written nothing, where a key has not twice that room, or cannot be read, or
-- cannot stay where it stands.
--
-- Given: `now`; the quotas; what Redis holds of each key, a text or false; and MOST_VALUES, as many as a
-- function may give or take at once.

local KEYS = KEYS
local count = #KEYS
local totals, last = integers(ARGV[3], MOST_VALUES)
if last ~= 2 * count + 1 then
  error('ERR Malformed totals', 0)
end

-- Filled at once: growing one by one costs more.
local states, reply = { unpack(KEYS) }, { now, 2, unpack(totals, 2, last) }
for k = 1, count do
  local quota, total, text = quotas[totals[2 * k]], totals[2 * k + 1], held[k]
  local algorithm = quota.algorithm
  if not text then
    text = missing(algorithm, KEYS[k])
    if text == nil then
      return
    end
    held[k] = text
  end
  local state, remaining, elsewhere = algorithm.settle(text, quota, now)
  if not state or elsewhere or remaining < 2 * total then
    return
  end
  states[k], reply[2 * k + 1] = state, remaining - total
end

for k = 1, count do
  local quota, total, state = quotas[totals[2 * k]], totals[2 * k + 1], states[k]
  local algorithm, remaining = quota.algorithm, reply[2 * k + 1]
  reply[2 * k + 2] = state.reset or algorithm.reset(state, quota, remaining)
  algorithm.save(KEYS[k], state, quota, remaining, held[k] and total)
end
return struct.pack('<' .. string.rep('d', #reply), unpack(reply))
