-- The beginning of every script. A script is one atomic step. KEYS[1] is the prefix of all keys of this log.
--
--   meta       hash: epoch    the number of this history of the log; a higher one is begun when history was rewound
--                    seq      the number of the last entry: 1, 2, 3 … over all epochs of this log
--                    size     the number of entries in the stream
--                    durable  entries up to this seq are known to be as durable as configured
--                    beat, beat_ms   id and time of the last heartbeat
--                    sum, summed     the running digest of all items but heartbeats, and the id of the last one in it
--   stream     entries:     e epoch  n seq  i id  r revision  k kind  x ends_at in ms  p payload  c checksum
--                           t token of the append, and number of the attempt
--                           m "1" if the next entry belongs to the same chain
--                           z padding of an entry with a place: see `append`
--              heartbeats:  e epoch  n seq of the last entry  h "1"; there is one at a time
--   ends       sorted set: id -> the latest ends_at of its entries
--   calls      sorted set: id of each call without an `end` -> seq of its first stored entry
--   ended      sorted set: id of each call whose place may still be stored -> the time of its end, in ms
--   alert:ID   hash: last (the last number), kind (of the last entry; `cancel` or `end` for ever once there is one),
--              and for each revision its id in the stream. Calls have this hash too.
--   counts:ID, counts:ID/REVISION  hash: a process -> "sent acked declined pushed"
local PREFIX = KEYS[1]
local META, STREAM, ENDS = PREFIX .. 'meta', PREFIX .. 'stream', PREFIX .. 'ends'
local CALLS, ENDED = PREFIX .. 'calls', PREFIX .. 'ended'

-- Whether entries of a kind that this release knows belong to an alert or to a call.
local OF = {revision = 'alert', cancel = 'alert', call = 'call', widen = 'call', claim = 'call', release = 'call',
  report = 'call', ['end'] = 'call'}

local function time_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- Return the fields of the stream's entry with this id, by name; nil if there is none.
local function entry_at(id)
  local found = redis.call('XRANGE', STREAM, id, id)[1]
  if not found then return nil end
  local fields = {}
  for at = 1, #found[2], 2 do fields[found[2][at]] = found[2][at + 1] end
  return fields
end

-- Return epoch and seq of the log, which is created if there is none. The caller's number of the last durable entry is
-- stored if it belongs to this epoch.
local function open(known_epoch, durable)
  local meta = redis.call('HMGET', META, 'epoch', 'seq', 'durable')
  local epoch, seq = tonumber(meta[1] or nil), tonumber(meta[2] or 0)
  if not epoch then
    epoch = time_ms()
    local last = redis.call('XREVRANGE', STREAM, '+', '-', 'COUNT', 1)[1]
    if last then seq = tonumber((entry_at(last[1]) or {}).n) or 0 end
    redis.call('HSET', META, 'epoch', epoch, 'seq', seq, 'size', redis.call('XLEN', STREAM))
  elseif known_epoch == meta[1] and tonumber(durable) > tonumber(meta[3] or 0) and tonumber(durable) <= seq then
    redis.call('HSET', META, 'durable', durable)
  end
  return epoch, seq
end
