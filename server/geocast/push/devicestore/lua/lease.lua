-- Renew the leases of a process, and take free shards up to the process's share (rule WPN1).
--
--   ARGV  the process; the duration of a lease in ms; 1 if the process may take shards; the life of the store that the
--         process knows ('' for none), and the writes that it knows; then each shard that it holds, with the number of
--         its lease
--   ->    {life, writes, share, 1 if another process has more shards than the share, ms until the first lease of another
--         process ends (-1: there is none), shard, number, …}: all shards that the process has now
--
-- The numbers of a shard's leases rise, even if a failover undoes some of them, because they are times. So the process
-- with the greatest number is the latest holder. A lease that has ended still belongs to its holder until another
-- process takes the shard. No shard is taken from a store that has lost data: the holders of shards come first, because
-- they know what has to be put back.
--
-- Example: Redis fails over and forgets the lease 1700000005000000 of shard 7. The next lease gets the time of that
-- moment in microseconds, which is greater, so a late write of the forgotten holder is refused.
local process, lasts, may_take = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local now_life, writes = life(), tonumber(redis.call('HGET', META, 'writes'))
if ARGV[4] ~= '' and (ARGV[4] ~= now_life or writes < tonumber(ARGV[5])) then may_take = false end
local now_us = time_us()
local now = math.floor(now_us / 1000)
redis.call('ZREMRANGEBYSCORE', PROCESSES, '-inf', text(now))
redis.call('ZADD', PROCESSES, text(now + lasts), process)
local share = math.ceil(SHARDS / redis.call('ZCARD', PROCESSES))

local own, count = {}, 0
local function hold(shard, number)
  own[shard] = number
  count = count + 1
  redis.call('HSET', LEASES, shard, text(number) .. ' ' .. text(now + lasts) .. ' ' .. process)
end
for at = 6, #ARGV, 2 do
  local number = tonumber(ARGV[at + 1])
  if number >= lease_of(ARGV[at]) then hold(tonumber(ARGV[at]), number) end
end

local others, first = {}, -1
for shard = 0, SHARDS - 1 do
  if not own[shard] then
    local number, ends, holder = lease_of(shard)
    if holder ~= '' and ends > now then
      others[holder] = (others[holder] or 0) + 1
      if first < 0 or ends - now < first then first = ends - now end
    elseif may_take and count < share then
      hold(shard, math.max(number + 1, now_us))
    end
  end
end

local crowded = 0
for _, has in pairs(others) do
  if has > share then crowded = 1 end
end
local answer = {now_life, writes, share, crowded, first}
for shard, number in pairs(own) do
  answer[#answer + 1] = shard
  answer[#answer + 1] = text(number)
end
return answer
