-- Free shards. The numbers of their leases stay, so the next lease gets a greater one.
--
--   ARGV  the process; 1 if the process ends and needs no share; then each shard with the number of its lease
if ARGV[2] == '1' then redis.call('ZREM', PROCESSES, ARGV[1]) end
for at = 3, #ARGV, 2 do
  local number = lease_of(ARGV[at])
  if number <= tonumber(ARGV[at + 1]) then redis.call('HSET', LEASES, ARGV[at], ARGV[at + 1] .. ' 0 ') end
end
