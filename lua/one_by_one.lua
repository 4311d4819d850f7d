-- Decides operations in order, each as what those before it left: all of an operation's limits pass, or
-- none of them consumes anything.
--
-- A key is read once, however many operations name it, and written once, after all is decided. So a
-- Redis that refuses writes refuses the first one, and nothing was written.
--
-- An instruction of Lua's takes forty of the processor's: what a key has of its own stands in arrays by
-- the key's number, since a table for each would cost as much as the rest; and a take, which is what
-- almost all operations are, counts down `free` and calls nobody.
--
-- Given: `now`; the quotas; what Redis holds of each key, a text or false; and MOST_VALUES, as many as a
-- function may give or take at once.

local min, rep, tonumber = math.min, string.rep, tonumber
local call, pack, unpack = redis.call, struct.pack, unpack
local KEYS, ARGV = KEYS, ARGV

-- A number of operations above this tells that costs follow.
local WITH_COSTS = 100

local numbers, last = integers(ARGV[2], MOST_VALUES)

local large = 3
local function next_large(least)
  large = large + 1
  local number = tonumber(ARGV[large])
  if not number or number < least then
    error('ERR Malformed number', 0)
  end
  return number
end

-- === accounts: what a key holds, as a quota sees it now ===

-- Filled at once: growing one by one costs more.
local function by_key()
  return #KEYS <= MOST_VALUES and { unpack(KEYS) } or {}
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

-- What was changed becomes what is held, as if it had been written.
local function commit(k)
  local state, quota, remaining = states[k], quota_of[k], free[k]
  if remaining < quota.capacity then
    held[k] = quota.algorithm.keep(state, quota, remaining)
    settled[k] = { state, quota, remaining }
  else
    held[k], settled[k], void[k] = false, nil, true
  end
  changed[k] = nil
end

-- Makes this quota the one that the account is seen by, once `again` because what is held is another.
-- False if the key holds something else than a state of the quota's algorithm.
local function see(k, quota, again)
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
      error('ERR Malformed operation', 0)
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
      free[k] = quota.algorithm.add(states[k], quota, free[k], costs and costs[i] or 1, 0)
      changed[k] = changed[k] or moved[k]
    end
    return 1
  end

  local function lease(limits, ttl)
    for i = 1, limits do
      local k = keys[i]
      local quota = quota_of[k]
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
      local remaining = quota.algorithm.give_back(states[k], quota, free[k], cost, receipt)
      if remaining or moved[k] then
        free[k] = remaining or free[k]
        commit(k)
        see(k, quota, true)
      end
    end
    return 1
  end

  local function reset(limits)
    for i = 1, limits do
      local k = keys[i]
      held[k], settled[k], void[k], changed[k] = false, nil, true, nil
      see(k, quota_of[k], true)
    end
    return 1
  end

  return { [3] = charge, [4] = give_back, [5] = reset, [6] = lease }
end

local operations

local TAKE, PEEK, GIVE_BACK, LEASE = 1, 2, 4, 6

-- === the batch ===

local reply, told = last <= MOST_VALUES and { unpack(numbers) } or {}, 1
reply[1] = now

local at = 2
while at <= last do
  local code, limits, operand = numbers[at], numbers[at + 1], nil
  costs = nil
  if code > WITH_COSTS then
    code, costs = code - WITH_COSTS, {}
  end
  if code == GIVE_BACK or code == LEASE then
    operand = next_large(0)
  end
  if costs then
    for i = 1, limits do
      costs[i] = next_large(1)
    end
  end

  local first, fits, readable = at, 1, true
  for i = 1, limits do
    at = at + 2
    local k, quota = numbers[at], quotas[numbers[at + 1]]
    keys[i] = k
    if quota_of[k] ~= quota and not see(k, quota) then
      readable = false
    elseif free[k] < (costs and costs[i] or 1) then
      fits = 0
    end
  end
  at = at + 2

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
    local k, cost = keys[i], costs and costs[i] or 1
    local remaining, retry, reset = 0, 0, 0
    if readable then
      local quota, state = quota_of[k], states[k]
      remaining = free[k]
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
    elseif quota_of[k] ~= quotas[numbers[first + 2 * i + 1]] then
      remaining = -1
    end
    reply[told + 2], reply[told + 3], reply[told + 4] = remaining, retry, reset
    told = told + 3
  end
  told = told + 1
end

for k = 1, #KEYS do
  local state, quota, remaining, taken = states[k], quota_of[k], free[k], nil
  local news = changed[k] or remaining ~= begun[k]
  if news or void[k] or settled[k] then
    if settled[k] and not news then
      state, quota, remaining = unpack(settled[k])
    elseif held[k] and not (changed[k] or void[k] or settled[k]) then
      taken = begun[k] - remaining
    end
    if void[k] or remaining == quota.capacity then
      call('UNLINK', KEYS[k])
    end
    if remaining < quota.capacity then
      quota.algorithm.save(KEYS[k], state, quota, remaining, taken)
    end
  end
end

local packed = {}
for from = 1, told, MOST_VALUES do
  local upto = min(from + MOST_VALUES - 1, told)
  packed[#packed + 1] = pack('<' .. rep('d', upto - from + 1), unpack(reply, from, upto))
end
return table.concat(packed)
