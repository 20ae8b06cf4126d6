-- Put back devices that the store may have lost (DevS12). The holders of their shards call this, and then `note`.
--
--   ARGV  for each device its term, its digest and its value
--   ->    life, writes, {shard, …}: the shards that have a later term, whose devices are refused
--
-- A device that is stored with a longer lease has registered meanwhile, and a device whose endpoint belongs to another
-- one by now was replaced (rule WPR8): these stay as they are.
local refused, answer = {}, {}
for at = 1, #ARGV, 3 do
  local device, known = ARGV[at + 1], cmsgpack.unpack(ARGV[at + 2])
  local other = redis.call('HGET', ENDPOINTS, known[2])
  if tonumber(ARGV[at]) < lease_of(shard_of(device)) then
    refused[shard_of(device)] = true
  elseif (not other or other == device) and (fields_of(stored(device))[4] or 0) <= known[4] then
    put(device, ARGV[at + 2])
  end
end
for shard in pairs(refused) do answer[#answer + 1] = shard end
local result = wrote()
result[3] = answer
return result
