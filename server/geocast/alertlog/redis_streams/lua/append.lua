-- Store entries. Each is checked by rules LogA1 and LogC1. An entry that was stored before is recognized by its token
-- or its payload. Entries of kinds that are not in OF may be the first, the last or any other of a chain (LogG2).
--
--   ARGV  known epoch, durable (see `open`), mending; then for each entry
--         id, revision, kind, ends_at, payload, checksum, token, more, and for an `end` its time in ms
--   ->    epoch, seq; then for each entry
--         {answer, last revision, its kind, and of the other entry in its place kind, ends_at, payload}
--         answer: stored; ours (by this very append, whose reply was lost); same; other; refused (LogA1)
--
-- Mending puts entries back that the stream has lost, whether the index has them or not, and allows gaps between
-- numbers. A cancel or an `end` that is there stays the last entry of this release's kinds. A `call` entry, whose place
-- may have been deleted, is refused after an `end` (LogC4).
local epoch, seq = open(ARGV[1], ARGV[2])
local mending = ARGV[3] == '1'
local answers, stored = {epoch, seq}, 0

-- Redis stores entries of a stream in blocks of some 4 KB. A deleted entry stays in its block, and in Redis' files,
-- until all entries of the block are deleted. An entry with a place has to be gone in time (LogC4), so it is made so
-- large that it has a block of its own.
local ALONE = {'z', string.rep(' ', 4096)}

-- Return whether the chain belongs to an alert or a call; nil if it has no entry of a kind that this release knows.
local function chain_of(key, last, last_kind)
  for revision = last, 1, -1 do
    if OF[last_kind] then break end
    local place = redis.call('HGET', key, revision)
    last_kind = place and (entry_at(place) or {}).k or ''
  end
  return OF[last_kind]
end

-- Return the token without the number of the attempt.
local function append_of(token)
  return string.match(token or '', '^%w*')
end

for at = 4, #ARGV, 9 do
  local id, revision, kind, ends, payload, checksum, token, more, ended_at = unpack(ARGV, at, at + 8)
  local key, number = PREFIX .. 'alert:' .. id, tonumber(revision)
  local index = redis.call('HMGET', key, 'last', 'kind', revision)
  local last, last_kind = tonumber(index[1] or 0), index[2] or ''
  local there = index[3] and entry_at(index[3])
  local ended = last_kind == 'cancel' or last_kind == 'end'
  local ours, chain = OF[kind], chain_of(key, last, last_kind)
  local fits = not ours or not chain or ours == chain
  if kind == 'call' and last_kind == 'end' then fits = false end
  local answer
  if there then
    answer = append_of(there.t) == append_of(token) and 'ours' or there.p == payload and 'same' or 'other'
  elseif fits and ((number == last + 1 and not ended) or (mending and (number <= last or not ended or not ours))) then
    answer, stored, seq = 'stored', stored + 1, seq + 1
    local place = redis.call('XADD', STREAM, '*', 'e', epoch, 'n', seq, 'i', id, 'r', revision, 'k', kind, 'x', ends,
      'p', payload, 'c', checksum, 't', token, 'm', more, unpack(kind == 'call' and ALONE or {}))
    redis.call('HSET', key, revision, place)
    if kind == 'cancel' or kind == 'end' or (number > last and not ended) then last_kind = kind end
    last = math.max(last, number)
    redis.call('HSET', key, 'last', last, 'kind', last_kind)
    redis.call('ZADD', ENDS, 'GT', ends, id)
    if kind == 'end' then
      redis.call('ZREM', CALLS, id)
      redis.call('ZADD', ENDED, 'NX', ended_at, id)
    elseif ours == 'call' and not ended then
      redis.call('ZADD', CALLS, 'NX', seq, id)
    end
  else
    answer = 'refused'
  end
  local instead = answer == 'other' and there or {}
  answers[#answers + 1] = {answer, last, last_kind, instead.k or '', instead.x or 0, instead.p or ''}
end

-- Something is written in any case, because the WAITAOF after this script waits only for writes of its own connection.
-- Entries that another connection has stored come before this write, so they are synced with it.
redis.call('HSET', META, 'seq', seq)
redis.call('HINCRBY', META, 'size', stored)
answers[2] = seq
return answers
