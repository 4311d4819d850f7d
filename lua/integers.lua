-- The integers in a text, of one byte each or of four, the highest first: its first byte, 1 or 4, tells
-- which, and has the first place in the list. And the last place.
--
-- Given: the text; and MOST_VALUES, as many as a function may give at once.

local byte = string.byte

local list = { byte(text, 1, MOST_VALUES) }
for from = MOST_VALUES + 1, #text, MOST_VALUES do
  local more = { byte(text, from, from + MOST_VALUES - 1) }
  for i = 1, #more do
    list[from + i - 1] = more[i]
  end
end
local last = #list
if list[1] == 4 then
  last = (last - 1) / 4 + 1
  for i = 2, last do
    local j = 4 * i - 6
    list[i] = ((list[j] * 256 + list[j + 1]) * 256 + list[j + 2]) * 256 + list[j + 3]
  end
elseif list[1] ~= 1 then
  error('ERR Malformed numbers', 0)
end
return list, last
