-- Let go of shards. Their numbers stay, so that the next lease has a greater one.
--
--   ARGV  process; 1 if it goes, and counts no more; then each shard and its number
if ARGV[2] == '1' then redis.call('ZREM', PROCESSES, ARGV[1]) end
for at = 3, #ARGV, 2 do
  local number = lease_of(ARGV[at])
  if number <= tonumber(ARGV[at + 1]) then redis.call('HSET', LEASES, ARGV[at], ARGV[at + 1] .. ' 0 ') end
end
