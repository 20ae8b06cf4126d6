-- Return the open calls: calls without an `end`, with an entry that has not expired.
--
--   ARGV  the time in ms
--   ->    epoch, durable, seq ('' if unknown), and their ids, in the order of their first entries
local meta = redis.call('HMGET', META, 'epoch', 'durable', 'seq')
local open_ones = {}
for _, id in ipairs(redis.call('ZRANGE', CALLS, 0, -1)) do
  local ends = tonumber(redis.call('ZSCORE', ENDS, id) or 0)
  if ends > tonumber(ARGV[1]) then open_ones[#open_ones + 1] = id end
end
return {meta[1] or '', meta[2] or '', meta[3] or 0, open_ones}
