-- Forget alerts of which every entry ended before a time.
--
--   ARGV  that time in ms; how many alerts at most; how old in ms, by its id, an entry may be that no alert knows
--   ->    how many entries were forgotten
local gone = 0
local ended = redis.call('ZRANGE', ENDS, '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ended) do
  local key = PREFIX .. 'alert:' .. id
  for revision = 1, tonumber(redis.call('HGET', key, 'last') or 0) do
    local place = redis.call('HGET', key, revision)
    if place then
      gone = gone + 1
      redis.call('HINCRBY', META, 'size', -redis.call('XDEL', STREAM, place))
    end
  end
  redis.call('DEL', key, PREFIX .. 'counts:' .. id)
  redis.call('ZREM', ENDS, id)
end
-- What others have added to the stream is in no alert's index: it goes by its age.
if #ended == 0 then redis.call('XTRIM', STREAM, 'MINID', time_ms() - ARGV[3]) end
return gone
