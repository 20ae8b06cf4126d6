-- What every script begins with. A script is one atomic step; KEYS[1] is what all names of this store begin with. All
-- names and values are digests, sealed records, or numbers.
--
--   meta             hash: life     a number for this history of the store; a greater one when it was made anew
--                          writes   how many scripts have written
--                          changes  the number of the last entry of `changes`
--   devices:SHARD    hash: device -> {owner, endpoint, secret, until in ms, sealed}, as MessagePack
--   endpoints, secrets, owners
--                    hashes: the first two -> device;  owner -> {device, …}, as MessagePack
--   told:SHARD:ALERT hash: device -> {number, state, ends at in ms}, as MessagePack
--   alerts:SHARD     sorted set: alert of which there is such a hash -> the greatest of its ends
--   changes          stream: w who wrote it  d a device that was put or forgotten  n the note with it; its id is NUMBER-0
--   leases           hash: SHARD -> "NUMBER ENDS_AT HOLDER"; without a holder when it was let go of
--   processes        sorted set: each process that holds shards, or wants to -> when it counts as gone, in ms
local PREFIX = KEYS[1]
local META, CHANGES, LEASES = PREFIX .. 'meta', PREFIX .. 'changes', PREFIX .. 'leases'
local PROCESSES, ENDPOINTS = PREFIX .. 'processes', PREFIX .. 'endpoints'
local SECRETS, OWNERS = PREFIX .. 'secrets', PREFIX .. 'owners'
local SHARDS = 64
local KEPT = 10000 -- changes; who is further behind reads all of its shards

local function time_us()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

local function text(number) return string.format('%.0f', number) end

local function shard_of(device) return device:byte(1) % SHARDS end

-- The history of this store, which is made if there is none.
local function life()
  local there = redis.call('HGET', META, 'life')
  if there then return there end
  local now = text(time_us())
  redis.call('HSET', META, 'life', now, 'writes', 0, 'changes', now)
  return now
end

-- (life, writes), with one more write.
local function wrote() return {life(), redis.call('HINCRBY', META, 'writes', 1)} end

-- (number, when it ends in ms, holder) of the lease of a shard; the number is 0 if nobody ever had it.
local function lease_of(shard)
  local number, ends, holder = string.match(redis.call('HGET', LEASES, shard) or '', '^(%d+) (%d+) (.*)$')
  return tonumber(number or 0), tonumber(ends or 0), holder or ''
end

local function told_of(shard, alert) return PREFIX .. 'told:' .. shard .. ':' .. alert end

-- Set a line; an empty value takes it away.
local indexed = {} -- key of a line's hash -> the greatest end that the index has of it, by what this script has set
local function set_line(shard, device, alert, value, ends)
  local key = told_of(shard, alert)
  if value == '' then
    redis.call('HDEL', key, device)
    return
  end
  redis.call('HSET', key, device, value)
  if (indexed[key] or -1) < tonumber(ends) then
    redis.call('ZADD', PREFIX .. 'alerts:' .. shard, 'GT', ends, alert)
    indexed[key] = tonumber(ends)
  end
end

-- Write lines, from ARGV[first] on: for each device, secret, term, alert, value, when the alert ends in ms. One of another
-- registration is passed over (DevS6). -> the shards of which somebody has a later term: their lines are refused.
local function note(first)
  local refused, numbers, answer = {}, {}, {}
  for at = first, #ARGV, 6 do
    local device, secret, term, alert, value, ends = unpack(ARGV, at, at + 5)
    local shard = shard_of(device)
    if not numbers[shard] then numbers[shard] = lease_of(shard) end
    if tonumber(term) < numbers[shard] then
      refused[shard] = true
    elseif redis.call('HGET', SECRETS, secret) == device then
      set_line(shard, device, alert, value, ends)
    end
  end
  for shard in pairs(refused) do answer[#answer + 1] = shard end
  return answer
end

-- What is stored of a device; false if it is not there.
local function stored(device)
  return redis.call('HGET', PREFIX .. 'devices:' .. shard_of(device), device)
end

-- Set what an owner has; nothing is not kept.
local function set_owned(owner, devices)
  if #devices == 0 then
    redis.call('HDEL', OWNERS, owner)
  else
    redis.call('HSET', OWNERS, owner, cmsgpack.pack(devices))
  end
end

local function owned_by(owner, but)
  local devices = {}
  for _, each in ipairs(cmsgpack.unpack(redis.call('HGET', OWNERS, owner) or '\144')) do
    if each ~= but then devices[#devices + 1] = each end
  end
  return devices
end

-- Tell all who follow that a device is another now, or gone.
local function announce(writer, device, what)
  life()
  local id = text(redis.call('HINCRBY', META, 'changes', 1)) .. '-0'
  redis.call('XADD', CHANGES, 'MAXLEN', '~', KEPT, id, 'w', writer, 'd', device, 'n', what)
end

-- Take a device out of all indexes.
local function unindex(device, there)
  if redis.call('HGET', ENDPOINTS, there[2]) == device then redis.call('HDEL', ENDPOINTS, there[2]) end
  if redis.call('HGET', SECRETS, there[3]) == device then redis.call('HDEL', SECRETS, there[3]) end
  set_owned(there[1], owned_by(there[1], device))
end

-- Forget a device that is there, and all that it was told; and tell all.
local function forget(writer, device)
  local shard = shard_of(device)
  unindex(device, cmsgpack.unpack(stored(device)))
  redis.call('HDEL', PREFIX .. 'devices:' .. shard, device)
  for _, alert in ipairs(redis.call('ZRANGE', PREFIX .. 'alerts:' .. shard, 0, -1)) do
    redis.call('HDEL', told_of(shard, alert), device)
  end
  announce(writer, device, '')
end

-- Store a device; what it was told stays.
local function put(device, value)
  local before, there = stored(device), cmsgpack.unpack(value)
  if before then unindex(device, cmsgpack.unpack(before)) end
  redis.call('HSET', PREFIX .. 'devices:' .. shard_of(device), device, value)
  redis.call('HSET', ENDPOINTS, there[2], device)
  redis.call('HSET', SECRETS, there[3], device)
  local owned = owned_by(there[1], device)
  owned[#owned + 1] = device
  set_owned(there[1], owned)
end
