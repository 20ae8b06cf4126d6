-- Remove the lines of alerts that are over, except alerts whose end was moved beyond the caller's time meanwhile.
--
--   ARGV  the time in ms by the caller's clock; then for each alert its shard and digest
--   ->    life, writes, the number of removed lines
local gone = 0
for at = 2, #ARGV, 2 do
  local index, alert = PREFIX .. 'alerts:' .. ARGV[at], ARGV[at + 1]
  local ends = redis.call('ZSCORE', index, alert)
  if ends and tonumber(ends) <= tonumber(ARGV[1]) then
    gone = gone + redis.call('HLEN', told_of(ARGV[at], alert))
    redis.call('UNLINK', told_of(ARGV[at], alert))
    redis.call('ZREM', index, alert)
  end
end
local answer = wrote()
answer[3] = gone
return answer
