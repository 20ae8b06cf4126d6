-- The functions that all scripts share. A script is one atomic operation. KEYS[1] is the prefix of all keys of the store.
-- All names and values are digests, encrypted records, or numbers.
--
--   meta             hash: life     a number for this history of the store; a new store gets a greater one
--                          writes   how many scripts have written
--                          changes  the number of the last entry of `changes`
--   devices:SHARD    hash: device -> {owner, endpoint, secret, end of the lease in ms, sealed}, as MessagePack
--   endpoints, secrets, owners
--                    hashes: the first two -> device;  owner -> {device, …}, as MessagePack
--   told:SHARD:ALERT hash: device -> {number, state, the alert's end in ms}, as MessagePack: the lines of an alert
--   alerts:SHARD     sorted set: each alert that has such a hash -> the latest end in its lines, in ms
--   changes          stream: w the writer, d the device that was put or forgotten, n the note; the id is NUMBER-0
--   leases           hash: SHARD -> "NUMBER ENDS_AT HOLDER"; without a holder after a release
--   processes        sorted set: each process that holds shards or wants some -> when it counts as dead, in ms
local PREFIX = KEYS[1]
local META, CHANGES, LEASES = PREFIX .. 'meta', PREFIX .. 'changes', PREFIX .. 'leases'
local PROCESSES, ENDPOINTS = PREFIX .. 'processes', PREFIX .. 'endpoints'
local SECRETS, OWNERS = PREFIX .. 'secrets', PREFIX .. 'owners'
local SHARDS = 64
local KEPT = 10000 -- most changes that are kept; a process that is further behind reads all devices of its shards

local function time_us()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

local function text(number) return string.format('%.0f', number) end

local function shard_of(device) return device:byte(1) % SHARDS end

-- Return the life of the store: the number of its history. Create the store if it does not exist.
local function life()
  local there = redis.call('HGET', META, 'life')
  if there then return there end
  local now = text(time_us())
  redis.call('HSET', META, 'life', now, 'writes', 0, 'changes', now)
  return now
end

-- Count one more write; return {life, writes}.
local function wrote() return {life(), redis.call('HINCRBY', META, 'writes', 1)} end

-- Return the number, the end in ms and the holder of a shard's lease. The number is 0 if there never was a lease.
local function lease_of(shard)
  local number, ends, holder = string.match(redis.call('HGET', LEASES, shard) or '', '^(%d+) (%d+) (.*)$')
  return tonumber(number or 0), tonumber(ends or 0), holder or ''
end

local function told_of(shard, alert) return PREFIX .. 'told:' .. shard .. ':' .. alert end

-- Store a line; an empty value removes it.
local indexed = {} -- key of a hash of lines -> the latest end that this script has put into the index for it
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

-- Write the lines from ARGV[first] on, six values each: device, secret, term, alert, value, and the alert's end in ms.
-- Ignore lines of another registration (DevS6). Refuse lines of shards that have a later term, and return these (DevS7).
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

-- Return the stored value of a device, false if there is none.
local function stored(device)
  return redis.call('HGET', PREFIX .. 'devices:' .. shard_of(device), device)
end

-- Return the fields of a stored value; none if there is no value or it is damaged (DevS13).
local function fields_of(value)
  local is_read, there = pcall(cmsgpack.unpack, value or '')
  if not is_read or type(there) ~= 'table' then return {} end
  for at, kind in ipairs({'string', 'string', 'string', 'number', 'string'}) do
    if type(there[at]) ~= kind then return {} end
  end
  return there
end

-- Store the list of an owner's devices. An empty list is removed.
local function set_owned(owner, devices)
  if #devices == 0 then
    redis.call('HDEL', OWNERS, owner)
  else
    redis.call('HSET', OWNERS, owner, cmsgpack.pack(devices))
  end
end

-- Return the devices of an owner, without the device `but`.
local function owned_by(owner, but)
  local devices = {}
  for _, each in ipairs(cmsgpack.unpack(redis.call('HGET', OWNERS, owner) or '\144')) do
    if each ~= but then devices[#devices + 1] = each end
  end
  return devices
end

-- Append a change for all followers: the device was put or forgotten.
local function announce(writer, device, what)
  life()
  local id = text(redis.call('HINCRBY', META, 'changes', 1)) .. '-0'
  redis.call('XADD', CHANGES, 'MAXLEN', '~', KEPT, id, 'w', writer, 'd', device, 'n', what)
end

-- Remove a device from all indexes. Where they have the device of a damaged value is not known.
local function unindex(device, there)
  if not there[1] then return end
  if redis.call('HGET', ENDPOINTS, there[2]) == device then redis.call('HDEL', ENDPOINTS, there[2]) end
  if redis.call('HGET', SECRETS, there[3]) == device then redis.call('HDEL', SECRETS, there[3]) end
  set_owned(there[1], owned_by(there[1], device))
end

-- Forget a stored device and its lines, and announce that.
local function forget(writer, device)
  local shard = shard_of(device)
  unindex(device, fields_of(stored(device)))
  redis.call('HDEL', PREFIX .. 'devices:' .. shard, device)
  for _, alert in ipairs(redis.call('ZRANGE', PREFIX .. 'alerts:' .. shard, 0, -1)) do
    redis.call('HDEL', told_of(shard, alert), device)
  end
  announce(writer, device, '')
end

-- Store a device and its indexes. Its lines stay.
local function put(device, value)
  local there = cmsgpack.unpack(value)
  unindex(device, fields_of(stored(device)))
  redis.call('HSET', PREFIX .. 'devices:' .. shard_of(device), device, value)
  redis.call('HSET', ENDPOINTS, there[2], device)
  redis.call('HSET', SECRETS, there[3], device)
  local owned = owned_by(there[1], device)
  owned[#owned + 1] = device
  set_owned(there[1], owned)
end
