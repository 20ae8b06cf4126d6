-- Delete alerts whose entries all ended some time ago. The earlier of two clocks counts, since the caller's clock or
-- this server's clock may be ahead.
--
--   ARGV  the time in ms by the caller's clock; how long ago in ms; the most alerts to delete;
--         the age in ms, by its id, at which an item is deleted that belongs to no alert
--   ->    the number of deleted entries
local gone, now = 0, math.min(time_ms(), tonumber(ARGV[1]))
local before = string.format('(%.0f', now - ARGV[2])
local ended = redis.call('ZRANGE', ENDS, '-inf', before, 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ended) do
  local key = PREFIX .. 'alert:' .. id
  for revision = 0, tonumber(redis.call('HGET', key, 'last') or 0) do
    redis.call('DEL', PREFIX .. 'counts:' .. id .. '/' .. revision)
    local place = redis.call('HGET', key, revision)
    if place then
      gone = gone + 1
      redis.call('HINCRBY', META, 'size', -redis.call('XDEL', STREAM, place))
    end
  end
  redis.call('DEL', key, PREFIX .. 'counts:' .. id)
  for _, set in ipairs({ENDS, CALLS, ENDED}) do redis.call('ZREM', set, id) end
end
-- Items that other programs have added to the stream are in no alert's index, and are deleted by their age.
if #ended == 0 then redis.call('XTRIM', STREAM, 'MINID', string.format('%.0f', math.max(0, now - ARGV[4]))) end
return gone
