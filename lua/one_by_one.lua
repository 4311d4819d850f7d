-- Decides operations in order, each as what those before it left: all of an operation's limits pass, or
-- none of them consumes anything.
--
-- A key is read once, however many operations name it, and written once, after all is decided. So a
-- Redis that refuses writes refuses the first one, and nothing was written. Returns the reply and, if
-- there is anything to write, what writes it, which cannot fail but by Redis's refusal.
--
-- An instruction of Lua's takes forty of the processor's: what a key has of its own stands in arrays by
-- the key's number, since a table for each would cost as much as the rest; and a take, which is what
-- almost all operations are, counts down `free` and calls nobody.
--
-- Given: `now`; the quotas; what Redis holds of each key, a text or false; MOST_VALUES, as many as a
-- function may give or take at once; and `faults`, what is at fault and left out, which is told what is at
-- hand.

local min, rep, tonumber = math.min, string.rep, tonumber
local call, pack, unpack = redis.call, struct.pack, unpack
local KEYS, ARGV = KEYS, ARGV

-- A number of operations above this tells that costs follow.
local WITH_COSTS = 100

-- The most that a double counts exactly. The longest lease, a day, in ms.
local MOST, LONGEST_LEASE = 2 ^ 53 - 1, 86400000

local faulty_operations = faults.operations

-- Told by a function, because a variable costs next to nothing to set.
local operation_at_hand, key_at_hand
function faults.at_hand()
  return operation_at_hand, key_at_hand
end

local numbers, last = integers(ARGV[2], MOST_VALUES)

-- Nothing if it is out of range.
local large = 3
local function next_large(least, most)
  large = large + 1
  local number = tonumber(ARGV[large])
  if number and number >= least and number <= most and number % 1 == 0 then
    return number
  end
end

-- === accounts: what a key holds, as a quota sees it now ===

-- Filled at once: growing one by one costs more.
local function by_key()
  return #KEYS <= MOST_VALUES and { unpack(KEYS, 1, #KEYS) } or {}
end

-- `held` is a key's text, or what an algorithm makes of a key of another type, or false; and of what has
-- changed, what would be held if it were written.

-- What the algorithm made of it, for the quota that asked last. Until one does, neither is a table.
local states, quota_of = by_key(), by_key()
-- How many permits remain; and how many did when the quota first asked.
local free, begun = by_key(), by_key()
-- Whether the usage counts, but cannot stay where it is; whether that or more is to be written though
-- `free` may be as it was.
local moved, changed = {}, {}
-- Of a key that was changed and then seen otherwise: what is to be written unless it changes again,
-- as state, quota and permits that remain; whether what Redis holds is of no use.
local settled, void = {}, {}

-- What is held, from here on; what Redis holds is kept, for who decides the batch again.
local function hold(k, text)
  faults.read = faults.read or {}
  if faults.read[k] == nil then
    faults.read[k] = held[k]
  end
  held[k] = text
end

-- What was changed becomes what is held, as if it had been written.
local function commit(k)
  local state, quota, remaining = states[k], quota_of[k], free[k]
  if remaining < quota.capacity then
    hold(k, quota.algorithm.keep(state, quota, remaining))
    settled[k] = { state, quota, remaining }
  else
    hold(k, false)
    settled[k], void[k] = nil, true
  end
  changed[k] = nil
end

-- Makes this quota the one that the account is seen by, once `again` because what is held is another.
-- False if the key holds something else than a state of the quota's algorithm, or is none.
local function see(k, quota, again)
  key_at_hand = k
  local algorithm = quota.algorithm
  if not again then
    local key, before = KEYS[k], quota_of[k]
    if before and before ~= key then
      if before.algorithm ~= algorithm then
        return false
      elseif changed[k] or free[k] ~= begun[k] then
        commit(k)
      end
    elseif not key then
      return false
    elseif not held[k] then
      held[k] = missing(algorithm, key)
      if held[k] == nil then
        return false
      end
    end
  end
  local state, remaining, elsewhere = algorithm.settle(held[k], quota, now)
  if not state then
    return false
  end
  states[k], quota_of[k], free[k], begun[k] = state, quota, remaining, remaining
  if elsewhere or moved[k] then
    moved[k] = elsewhere
  end
  return true
end

-- === operations but take and peek: each gives its verdict ===

-- The keys of the operation at hand; its costs, where any is not 1; what a lease took of each limit.
local keys, costs, granted = {}, nil, {}

local function build_operations()
  local function charge(limits)
    for i = 1, limits do
      local k = keys[i]
      local quota = quota_of[k]
      key_at_hand = k
      free[k] = quota.algorithm.add(states[k], quota, free[k], costs and costs[i] or 1, 0)
      changed[k] = changed[k] or moved[k]
    end
    return 1
  end

  local function lease(limits, ttl)
    for i = 1, limits do
      local k = keys[i]
      local quota = quota_of[k]
      key_at_hand = k
      granted[i] = math.max(min(costs and costs[i] or 1, free[k]), 0)
      if granted[i] > 0 then
        free[k] = quota.algorithm.add(states[k], quota, free[k], granted[i], ttl * 1000)
      end
      changed[k] = changed[k] or moved[k]
    end
    return 1
  end

  local function give_back(limits, receipt)
    for i = 1, limits do
      local k, cost = keys[i], costs and costs[i] or 1
      local quota = quota_of[k]
      key_at_hand = k
      local remaining = quota.algorithm.give_back(states[k], quota, free[k], cost, receipt)
      if remaining or moved[k] then
        free[k] = remaining or free[k]
        commit(k)
        if not see(k, quota, true) then
          error('ERR Malformed state', 0)
        end
      end
    end
    return 1
  end

  local function reset(limits)
    for i = 1, limits do
      local k = keys[i]
      hold(k, false)
      settled[k], void[k], changed[k] = nil, true, nil
      see(k, quota_of[k], true)
    end
    return 1
  end

  local function hold(limits)
    for i = 1, limits do
      local k = keys[i]
      local quota = quota_of[k]
      if not quota.algorithm.hold then
        -- No fault of the key's.
        key_at_hand = nil
        error('ERR Malformed hold', 0)
      end
      free[k] = quota.algorithm.hold(states[k], quota, costs and costs[i] or 1)
      changed[k] = true
    end
    return 1
  end

  return { [3] = charge, [4] = give_back, [5] = reset, [6] = lease, [7] = hold }
end

local operations

local TAKE, PEEK, GIVE_BACK, LEASE, HOLD = 1, 2, 4, 6, 7

-- === the batch ===

local reply, told = last <= MOST_VALUES and { unpack(numbers, 1, last) } or {}, 1
reply[1] = now

-- Where the operation is that named a key last.
local named = by_key()

local at = 2
while at <= last do
  local code, limits, operand = numbers[at], numbers[at + 1], nil
  local first, next_at, fits, readable, strange = at, at + 2 + 2 * (limits or 0), 1, true, nil
  if not limits or next_at > last + 1 then
    operation_at_hand, key_at_hand = nil, nil
    error('ERR Malformed operations', 0)
  end
  operation_at_hand, key_at_hand = first, nil
  costs = nil
  if code > WITH_COSTS then
    code, costs = code - WITH_COSTS, {}
  end
  if code == GIVE_BACK or code == LEASE then
    operand = next_large(0, code == LEASE and LONGEST_LEASE or MOST)
    readable = operand ~= nil
  end
  if costs then
    -- What is held may be nothing.
    local least = code == HOLD and 0 or 1
    for i = 1, limits do
      costs[i] = next_large(least, MOST)
      readable = readable and costs[i] ~= nil
    end
  end

  if faulty_operations[first] or faults.all then
    readable = false
  elseif readable then
    for i = 1, limits do
      at = at + 2
      local k, quota = numbers[at], quotas[numbers[at + 1]]
      keys[i] = k
      if named[k] == first then
        readable = false
      elseif quota_of[k] ~= quota and not see(k, quota) then
        readable, strange = false, strange or {}
        strange[i] = true
      elseif free[k] < (costs and costs[i] or 1) then
        fits = 0
      end
      named[k] = first
    end
  end
  at = next_at

  local takes, verdict = false, -1
  if readable then
    if code == TAKE then
      takes, verdict = fits == 1, fits
    elseif code == PEEK then
      verdict = fits
    else
      operations = operations or build_operations()
      verdict = operations[code](limits, operand)
    end
  end
  reply[told + 1] = verdict
  for i = 1, limits do
    local remaining, retry, reset = 0, 0, 0
    if readable then
      local k, cost = keys[i], costs and costs[i] or 1
      local quota, state = quota_of[k], states[k]
      key_at_hand, remaining = k, free[k]
      if takes then
        remaining = remaining - cost
        free[k] = remaining
      elseif code == TAKE and moved[k] then
        -- A refusal consumes nothing, but what time or policy has moved is kept as it is told: else
        -- what lies in the future would stay there, refusing, for as long as it is refused.
        changed[k] = true
      end
      if remaining < cost then
        retry = cost > quota.capacity and -1 or quota.algorithm.retry(state, quota, remaining, cost)
      end
      if remaining < quota.capacity then
        reset = state.reset or quota.algorithm.reset(state, quota, remaining)
      end
      if code == LEASE then
        retry = granted[i]
      end
    elseif strange and strange[i] then
      remaining = -1
    end
    reply[told + 2], reply[told + 3], reply[told + 4] = remaining, retry, reset
    told = told + 3
  end
  told = told + 1
end

-- === what is to be written ===

-- By number, the keys; of those of which only permits were taken, how many.
local news, written, taken = {}, 0, {}
operation_at_hand = nil
for k = 1, #KEYS do
  local quota, remaining = quota_of[k], free[k]
  local differs = changed[k] or remaining ~= begun[k]
  if differs or void[k] or settled[k] then
    key_at_hand = k
    if settled[k] and not differs then
      states[k], quota, remaining = unpack(settled[k], 1, 3)
      quota_of[k], free[k] = quota, remaining
    elseif held[k] and not (changed[k] or void[k] or settled[k]) then
      taken[k] = begun[k] - remaining
    end
    if remaining < quota.capacity and quota.algorithm.prepare then
      quota.algorithm.prepare(states[k], quota, remaining, taken[k])
    end
    written = written + 1
    news[written] = k
  end
end

key_at_hand = nil
local packed = {}
for from = 1, told, MOST_VALUES do
  local upto = min(from + MOST_VALUES - 1, told)
  packed[#packed + 1] = pack('<' .. rep('d', upto - from + 1), unpack(reply, from, upto))
end
return table.concat(packed), written > 0 and function()
  for n = 1, written do
    local k = news[n]
    local key, quota, remaining = KEYS[k], quota_of[k], free[k]
    if void[k] or remaining == quota.capacity then
      call('UNLINK', key)
    end
    if remaining < quota.capacity then
      quota.algorithm.save(key, states[k], quota, remaining, taken[k])
    end
  end
end
