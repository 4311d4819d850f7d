-- Decides takes of which all pass, with room to spare: then no operation's place in the batch matters, and
-- each key loses at once what all of them take. That is what almost all batches are, and deciding them
-- one by one costs Redis twice as much.
--
-- Returns the reply; and of each key its state, and in the lists of `reply` and ARGV[3] what it has left and
-- what it loses, for these states are yet to be written. Returns nothing where a key has not twice that room, or cannot be read, or cannot stay where it stands, and where there
-- are more keys than a function may give numbers of.
--
-- Given: `now`; the quotas; what Redis holds of each key, a text or false; and MOST_VALUES, as many as a
-- function may give or take at once.

local KEYS = KEYS
local count = #KEYS
local values = 2 * count + 2
if values > MOST_VALUES then
  return
end
local totals, last = integers(ARGV[3], MOST_VALUES)
if last ~= 2 * count + 1 then
  return
end

-- Filled at once: growing one by one costs more.
local states, reply = { unpack(KEYS, 1, count) }, { now, 2, unpack(totals, 2, last) }
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
  remaining = remaining - total
  states[k], reply[2 * k + 1] = state, remaining
  reply[2 * k + 2] = state.reset or algorithm.reset(state, quota, remaining)
  local prepare = algorithm.prepare
  if prepare then
    prepare(state, quota, remaining, text and total)
  end
end

return struct.pack('<' .. string.rep('d', values), unpack(reply, 1, values)), states, reply, totals
