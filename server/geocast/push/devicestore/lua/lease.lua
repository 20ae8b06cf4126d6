-- Renew the leases that a process has, and take those that nobody has, up to its share (WPN1).
--
--   ARGV  process; how long a lease lasts in ms; 1 if it may take some; the life that it knows (''), and how many writes;
--         then each shard that it has, and its number
--   ->    {life, writes, its share, 1 if another process has more than that, in how many ms the first lease of another
--         one ends (-1: there is none), shard, number, …}: all that it has now
--
-- A number rises with each lease of a shard, also across what a failover took back: it is a time. So whoever names the
-- greater one is the later holder. A lease that has ended is its holder's for as long as nobody has taken it. Of a store
-- that has lost something nothing is taken: those who hold a shard come first.
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
