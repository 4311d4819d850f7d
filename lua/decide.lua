-- Decides a batch of operations, each over several limits: all of an operation's limits pass, or
-- none of them consumes anything. Each operation sees what those before it did.
--
-- KEYS, ARGV with their units, and the reply: README.md beside this file.
--
-- A key is read once, however many operations name it, and written once, after all is decided. So a
-- Redis that refuses writes refuses the first one, and nothing was written.

local find, match, tonumber = string.find, string.match, tonumber
local max, min = math.max, math.min
local KEYS, ARGV = KEYS, ARGV

local ALGORITHMS = { fw = fixed_window, sw = sliding_window, tb = token_bucket, lb = leaky_bucket }

local now = clock()()

-- === accounts: what a key holds, as it was stored and as a quota sees it now ===

local accounts, opened = {}, {}

local function open(key, algorithm)
  local readable, stored = pcall(algorithm.load, key)
  if not readable then
    -- Redis 7 raises tables, older ones strings.
    local reason = type(stored) == 'table' and stored.err or stored
    if not find(reason, 'WRONGTYPE', 1, true) then
      error(stored, 0)
    end
    stored = nil
  end
  local account = {
    key = key,
    algorithm = algorithm,
    readable = readable,
    existed = stored ~= nil,
    stored = stored,
  }
  accounts[key] = account
  opened[#opened + 1] = account
  return account
end

-- The state as of now in the quota's terms. Writes nothing: only `commit` makes it what is stored.
local function settled(account, quota)
  if account.quota ~= quota then
    account.quota = quota
    account.state = quota.algorithm.settle(account.stored, quota, now)
  end
  return account.state
end

-- A state of which nothing is used is no state: it holds not even a time.
local function commit(account)
  local state = account.state
  account.stored, account.dirty = state.used > 0 and state or nil, true
end

-- === operations: each gives its verdict ===

-- The accounts and quotas of the operation at hand.
local held, terms = {}, {}

local function all_fit(head)
  local verdict = 1
  for i = 1, head.limits do
    local quota = terms[i]
    if not quota.algorithm.fits(settled(held[i], quota), quota, quota.cost) then
      verdict = 0
    end
  end
  return verdict
end

local function charge(head)
  for i = 1, head.limits do
    local account, quota = held[i], terms[i]
    quota.algorithm.add(settled(account, quota), quota, quota.cost, 0)
    commit(account)
  end
  return 1
end

-- A refusal consumes nothing, but a state that time or policy has moved is kept as it is told:
-- else one that lies in the future would stay there, refusing, for as long as it is refused.
local function take(head)
  if all_fit(head) == 1 then
    return charge(head)
  end
  for i = 1, head.limits do
    if settled(held[i], terms[i]).moved then
      commit(held[i])
    end
  end
  return 0
end

-- How many permits the lease at hand took of each limit.
local granted = {}

-- The state is told at once: what remains is what a lease may take.
local function lease(head)
  for i = 1, head.limits do
    local account, quota = held[i], terms[i]
    local state = settled(account, quota)
    local remaining = quota.algorithm.tell(state, quota, 1)
    granted[i] = max(min(quota.cost, remaining), 0)
    if granted[i] > 0 then
      quota.algorithm.add(state, quota, granted[i], head.operand * 1000)
    end
    if granted[i] > 0 or state.moved then
      commit(account)
    end
  end
  return 1
end

local function give_back(head)
  for i = 1, head.limits do
    local account, quota = held[i], terms[i]
    local state = settled(account, quota)
    if quota.algorithm.give_back(state, quota, quota.cost, head.operand) or state.moved then
      commit(account)
      account.quota = nil
    end
  end
  return 1
end

local function reset(head)
  for i = 1, head.limits do
    local account = held[i]
    account.stored, account.quota, account.dirty = nil, nil, true
  end
  return 1
end

local OPERATIONS = {
  take = take,
  peek = all_fit,
  charge = charge,
  lease = lease,
  give_back = give_back,
  reset = reset,
}

-- === arguments: each distinct string is parsed once ===

local heads, quotas = {}, {}

local function parse_head(text)
  local kind, limits, operand = match(text, '^([a-z_]+) ([1-9]%d*) ?(%d*)$')
  local run = OPERATIONS[kind or '']
  if not run or (run == give_back or run == lease) ~= (operand ~= '') then
    error('ERR Malformed operation', 0)
  end
  local head = {
    run = run,
    limits = tonumber(limits),
    operand = tonumber(operand),
  }
  heads[text] = head
  return head
end

local function parse_quota(text)
  local code, limit, window, capacity, cost = match(text, '^(%l+) (%d+) (%d+) (%d+) ?(%d*)$')
  local module = ALGORITHMS[code or '']
  cost = cost == '' and 1 or tonumber(cost)
  if not module or cost == 0 then
    error('ERR Malformed quota', 0)
  end
  local algorithm = module()
  local quota = {
    algorithm = algorithm,
    limit = tonumber(limit),
    window = tonumber(window),
    capacity = tonumber(algorithm.holds == 'limit' and limit or capacity),
    cost = cost,
  }
  quotas[text] = quota
  return quota
end

-- === the batch ===

local reply, told = { now }, 1
local argument, key = 1, 0

while ARGV[argument] do
  local head = heads[ARGV[argument]] or parse_head(ARGV[argument])
  local limits, readable = head.limits, true
  for i = 1, limits do
    local text = ARGV[argument + i]
    local quota = quotas[text] or parse_quota(text)
    local account = accounts[KEYS[key + i]] or open(KEYS[key + i], quota.algorithm)
    held[i], terms[i] = account, quota
    readable = readable and account.readable and account.algorithm == quota.algorithm
  end
  argument, key = argument + 1 + limits, key + limits

  if readable then
    reply[told + 1] = head.run(head)
    for i = 1, limits do
      local quota, at = terms[i], told + 3 * i
      reply[at - 1], reply[at], reply[at + 1] =
        quota.algorithm.tell(settled(held[i], quota), quota, quota.cost)
    end
    if head.run == lease then
      for i = 1, limits do
        reply[told + 3 * i] = granted[i]
      end
    end
  else
    reply[told + 1] = -1
    for i = 1, limits do
      local own = held[i].readable and held[i].algorithm == terms[i].algorithm
      local at = told + 3 * i
      reply[at - 1], reply[at], reply[at + 1] = own and 0 or -1, 0, 0
    end
  end
  told = told + 1 + 3 * limits
end

for i = 1, #opened do
  local account = opened[i]
  if account.dirty then
    if account.stored then
      account.algorithm.save(account.key, account.stored, account.existed)
    elseif account.existed then
      redis.call('UNLINK', account.key)
    end
  end
end

return reply
