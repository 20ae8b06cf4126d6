-- Put back devices that the store may have lost, by whoever holds their shards; the lines follow by `note`.
--
--   ARGV  for each its term, digest, value
--   ->    life, writes, {shard, …} of which somebody has a later term: their devices are refused
--
-- One that is there with a longer lease has registered meanwhile, and one whose endpoint is another's by now was replaced
-- (WPR8): these stay as they are.
local refused, answer = {}, {}
for at = 1, #ARGV, 3 do
  local device, known = ARGV[at + 1], cmsgpack.unpack(ARGV[at + 2])
  local value, other = stored(device), redis.call('HGET', ENDPOINTS, known[2])
  if tonumber(ARGV[at]) < lease_of(shard_of(device)) then
    refused[shard_of(device)] = true
  elseif (not other or other == device) and (not value or cmsgpack.unpack(value)[4] <= known[4]) then
    put(device, ARGV[at + 2])
  end
end
for shard in pairs(refused) do answer[#answer + 1] = shard end
local result = wrote()
result[3] = answer
return result
