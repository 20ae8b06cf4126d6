-- Write a heartbeat, unless there is a young one, and check that the stream still has all its entries.
--
--   ARGV  known epoch, durable (see `open`); the age in ms below which a heartbeat is young; the epoch that the caller
--         wants to end, or ''; a number that the new epoch has to be above
--   ->    epoch, seq, id of the last item of the stream, heartbeats included; size, summed, sum (see `prelude`)
--
-- The digest goes on from where the last heartbeat left it, so all heartbeats together read each entry once. A log that
-- has none yet, from an earlier release, begins with what comes next.
--
-- In a new epoch all followers read the log again, and all processes put back the entries that it has lost.
local SUM_AT_ONCE = 500
local epoch, seq = open(ARGV[1], ARGV[2])
local meta = redis.call('HMGET', META, 'size', 'beat', 'beat_ms')
local beat, now = meta[2], time_ms()
local there = redis.call('XLEN', STREAM)
local cut = there < tonumber(meta[1] or 0) + (beat and 1 or 0)
local begin = cut or tonumber(ARGV[4]) == epoch
if begin then
  epoch = math.max(now, epoch + 1, tonumber(ARGV[5]) + 1)
  redis.call('HSET', META, 'epoch', epoch)
end
if begin or not beat or math.abs(now - tonumber(meta[3])) >= tonumber(ARGV[3]) then
  local id = redis.call('XADD', STREAM, '*', 'e', epoch, 'n', seq, 'h', '1')
  if beat then redis.call('XDEL', STREAM, beat) end
  beat = id
  redis.call('HSET', META, 'beat', beat, 'beat_ms', now)
  if cut then redis.call('HSET', META, 'size', redis.call('XLEN', STREAM) - 1) end
end
local top = redis.call('XREVRANGE', STREAM, '+', '-', 'COUNT', 1)[1][1]
local digest = redis.call('HMGET', META, 'summed', 'sum', 'size')
local summed, sum = digest[1] or top, digest[2] or ''
for _, item in ipairs(redis.call('XRANGE', STREAM, '(' .. summed, '+', 'COUNT', SUM_AT_ONCE)) do
  local parts, is_beat = {sum, item[1]}, false
  for at, text in ipairs(item[2]) do
    is_beat = is_beat or (at % 2 == 1 and text == 'h')
    parts[#parts + 1] = #text .. ':' .. text
  end
  if not is_beat then summed, sum = item[1], redis.sha1hex(table.concat(parts, ' ')) end
end
if summed ~= digest[1] then redis.call('HSET', META, 'summed', summed, 'sum', sum) end
return {epoch, seq, top, tonumber(digest[3] or 0), summed, sum}
