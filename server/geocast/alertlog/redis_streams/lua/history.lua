-- Return the entries of one alert or call.
--
--   ARGV  its id
--   ->    epoch, durable ('' if unknown), its entries {id in the stream, {field, value, …}} in order
local meta = redis.call('HMGET', META, 'epoch', 'durable')
local key = PREFIX .. 'alert:' .. ARGV[1]
local entries = {}
for revision = 1, tonumber(redis.call('HGET', key, 'last') or 0) do
  local place = redis.call('HGET', key, revision)
  local found = place and redis.call('XRANGE', STREAM, place, place)[1]
  if found then entries[#entries + 1] = found end
end
return {meta[1] or '', meta[2] or '', entries}
