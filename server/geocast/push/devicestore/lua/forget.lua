-- Forget the devices that are still the registrations that the caller knows (DevS3).
--
--   ARGV  the writer; then for each device its digest, its secret, its endpoint, and the end of its lease in ms
--   ->    life, writes
for at = 2, #ARGV, 4 do
  local there = fields_of(stored(ARGV[at]))
  local is_known = there[3] == ARGV[at + 1] and there[2] == ARGV[at + 2] and there[4] == tonumber(ARGV[at + 3])
  if is_known then forget(ARGV[1], ARGV[at]) end
end
return wrote()
