-- The end of the window in which a moment lies, both in ms since the Unix epoch.
--
-- Given: `t`, the moment; `window`, a window's length in ms; and `calendar`, if the windows are those of a
-- calendar: its `unit`, 1 for hours, 2 days, 3 weeks, which begin on Monday, 4 months; and `ahead`, by how
-- many ms local time is ahead of UTC. A month has no length.

if not calendar then
  return t - t % window + window
end

local DAY, MONTH, WEEK = 86400000, 4, 3
local unit, ahead, floor = calendar.unit, calendar.ahead, math.floor

if unit ~= MONTH then
  -- The epoch is a Thursday: the first Monday is its fifth day.
  local first = (unit == WEEK and 4 * DAY or 0) - ahead
  return t - (t - first) % window + window
end

-- Days before a year that begins in March, so that a leap day is a year's last.
local function before(year)
  return 365 * year + floor(year / 4) - floor(year / 100) + floor(year / 400)
end

-- From 1 March of the year 0 to the epoch, in days.
local TO_EPOCH = 719468

local day = floor((t + ahead) / DAY) + TO_EPOCH
-- Four centuries have 146097 days. In a year's last two days this may be the next year: then the month is -1.
local year = floor((day + 2) * 400 / 146097)
-- In a year that begins in March a month begins on this day of it: (153 * month + 2) / 5.
local month = floor((5 * (day - before(year)) + 2) / 153)
local next_month = month == 11 and before(year + 1) or before(year) + floor((153 * (month + 1) + 2) / 5)
return (next_month - TO_EPOCH) * DAY - ahead
