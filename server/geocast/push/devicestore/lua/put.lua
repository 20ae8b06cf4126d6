-- Store a device if the stored one is still what the caller has read. Forget another device that has its endpoint, and
-- announce all changes (DevS1, DevS2, DevS4).
--
--   ARGV  the writer, the device, its value, the value that was read ('': there was none), the note;
--         the most devices of an owner and of the store, checked for a new device ('': no limit);
--         then for each line the alert, the value, and the alert's end in ms
--   ->    life, writes, stored | changed | too many | full, {device, …}: the devices that were forgotten
local writer, device, value, was, what = unpack(ARGV, 1, 5)
local owned, all = tonumber(ARGV[6]), tonumber(ARGV[7])
local before, there = stored(device), cmsgpack.unpack(value)

local function answer(came, replaced)
  local result = wrote()
  result[3], result[4] = came, replaced
  return result
end

if (before or '') ~= was then return answer('changed', {}) end
local other = redis.call('HGET', ENDPOINTS, there[2])
local replaced = {}
if other and other ~= device and (fields_of(stored(other))[2] or there[2]) == there[2] then replaced = {other} end
if not before and owned then
  if #owned_by(there[1], replaced[1]) >= owned then return answer('too many', {}) end
  if redis.call('HLEN', ENDPOINTS) - #replaced >= all then return answer('full', {}) end
end
if replaced[1] then forget(writer, replaced[1]) end
if before and fields_of(before)[3] ~= there[3] then forget(writer, device) end
put(device, value)
for at = 8, #ARGV, 3 do set_line(shard_of(device), device, ARGV[at], ARGV[at + 1], ARGV[at + 2]) end
announce(writer, device, what)
return answer('stored', replaced)
