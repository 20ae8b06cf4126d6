-- Store entries; each is judged by rule LogA1, and one that was stored before is known by its token or its payload. Of
-- kinds only `cancel` has a meaning here: any other may begin an alert, and stand before and behind any (LogG2).
--
--   ARGV  known epoch, durable (see `open`), mending; then for each entry
--         id, revision, kind, ends_at, payload, checksum, token, more
--   ->    epoch, seq; then for each entry {what, last revision, kind, and of what is there instead kind, ends_at, payload}
--         what: stored; ours (by this very append, whose reply was lost); same; other; refused (LogA1)
--
-- Mending puts an entry that the index knows and the stream has lost back into the stream, and leaves gaps between
-- numbers. A cancel that is there stays the end all the same for what this release writes: revisions and cancels.
local epoch, seq = open(ARGV[1], ARGV[2])
local mending = ARGV[3] == '1'
local answers, stored = {epoch, seq}, 0

for at = 4, #ARGV, 8 do
  local id, revision, kind, ends, payload, checksum, token, more = unpack(ARGV, at, at + 7)
  local key, number = PREFIX .. 'alert:' .. id, tonumber(revision)
  local index = redis.call('HMGET', key, 'last', 'kind', revision)
  local last, last_kind = tonumber(index[1] or 0), index[2] or ''
  local there = index[3] and entry_at(index[3])
  local ended = last_kind == 'cancel'
  local ours = kind == 'revision' or kind == 'cancel'
  local answer
  if there then
    answer = there.t == token and 'ours' or there.p == payload and 'same' or 'other'
  elseif (number == last + 1 and not ended) or (mending and (number <= last or not ended or not ours)) then
    answer, stored, seq = 'stored', stored + 1, seq + 1
    local place = redis.call('XADD', STREAM, '*', 'e', epoch, 'n', seq, 'i', id, 'r', revision, 'k', kind, 'x', ends,
      'p', payload, 'c', checksum, 't', token, 'm', more)
    redis.call('HSET', key, revision, place)
    if kind == 'cancel' or (number > last and not ended) then last_kind = kind end
    last = math.max(last, number)
    redis.call('HSET', key, 'last', last, 'kind', last_kind)
    redis.call('ZADD', ENDS, 'GT', ends, id)
  else
    answer = 'refused'
  end
  local instead = answer == 'other' and there or {}
  answers[#answers + 1] = {answer, last, last_kind, instead.k or '', instead.x or 0, instead.p or ''}
end

-- Something is written in any case: WAITAOF behind this waits for what its own connection has written, and what was
-- stored before, by another connection, comes before this.
redis.call('HSET', META, 'seq', seq)
redis.call('HINCRBY', META, 'size', stored)
answers[2] = seq
return answers
