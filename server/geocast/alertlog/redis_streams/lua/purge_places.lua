-- Delete the entries with the place of calls that were ended some time ago. The earlier of two clocks counts.
--
--   ARGV  the time in ms by the caller's clock; how long ago in ms; the most calls to look at
--   ->    the number of deleted entries
local gone, now = 0, math.min(time_ms(), tonumber(ARGV[1]))
local before = string.format('%.0f', now - ARGV[2])
while gone == 0 do
  local ended = redis.call('ZRANGE', ENDED, '-inf', before, 'BYSCORE', 'LIMIT', 0, ARGV[3])
  if #ended == 0 then break end
  for _, id in ipairs(ended) do
    local key = PREFIX .. 'alert:' .. id
    for revision = 1, tonumber(redis.call('HGET', key, 'last') or 0) do
      local place = redis.call('HGET', key, revision)
      local found = place and entry_at(place)
      if found and found.k == 'call' then
        gone = gone + 1
        redis.call('HDEL', key, revision)
        redis.call('HINCRBY', META, 'size', -redis.call('XDEL', STREAM, place))
      end
    end
    redis.call('ZREM', ENDED, id)
  end
end
return gone
