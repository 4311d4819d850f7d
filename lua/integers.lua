-- The integers in a text, of one byte each or of four, the highest first: its first byte, 1 or 4, tells
-- which, and has the first place in the list. And the last place: there is nothing behind it.
--
-- Given: the text; and MOST_VALUES, as many as a function may give at once.

local byte, min = string.byte, math.min

local wide, size = byte(text), #text
if wide == 1 then
  local list = { byte(text, 1, MOST_VALUES) }
  for from = MOST_VALUES + 1, size, MOST_VALUES do
    local more = { byte(text, from, from + MOST_VALUES - 1) }
    for i = 1, #more do
      list[from + i - 1] = more[i]
    end
  end
  return list, size
elseif wide == 4 and size % 4 == 1 then
  local list, last = { wide }, 1
  for from = 2, size, 4 * MOST_VALUES do
    local count = min(MOST_VALUES, (size - from + 1) / 4)
    -- And the place of what follows.
    local more = { struct.unpack('>' .. string.rep('I4', count), text, from) }
    for i = 1, count do
      list[last + i] = more[i]
    end
    last = last + count
  end
  return list, last
end
error('ERR Malformed numbers', 0)
