-- Write a heartbeat, unless there is a young one, and check that the stream still has all its entries.
--
--   ARGV  known epoch, durable (see `open`); the age in ms below which a heartbeat is young; the epoch that the caller
--         wants to end, or ''; a number that the new epoch has to be above
--   ->    epoch, seq, id of the last item of the stream, heartbeats included
--
-- In a new epoch all followers read the log again, and all processes put back the entries that it has lost.
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
return {epoch, seq, redis.call('XREVRANGE', STREAM, '+', '-', 'COUNT', 1)[1][1]}
