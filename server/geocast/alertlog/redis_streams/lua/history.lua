-- The entries of some alerts.
--
--   ARGV  ids
--   ->    epoch, durable ('' if unknown); then for each id its entries {id in the stream, {field, value, …}} in order
local meta = redis.call('HMGET', META, 'epoch', 'durable')
local answers = {meta[1] or '', meta[2] or ''}
for at = 1, #ARGV do
  local key = PREFIX .. 'alert:' .. ARGV[at]
  local entries = {}
  for revision = 1, tonumber(redis.call('HGET', key, 'last') or 0) do
    local place = redis.call('HGET', key, revision)
    local found = place and redis.call('XRANGE', STREAM, place, place)[1]
    if found then entries[#entries + 1] = found end
  end
  answers[#answers + 1] = entries
end
return answers
