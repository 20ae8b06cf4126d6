-- Return the next alerts in the order of LogL1, each with its last entries, from the last one backwards: down to the
-- first entry of a known kind, and to the cancel if there is one.
--
--   ARGV  a place in that order: ends_at in ms, id; the most alerts to return
--   ->    epoch, durable ('' if unknown), and a list: for each alert
--         {ends_at, id, {id in the stream, {field, value, …}}, …}
local score, id, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local meta = redis.call('HMGET', META, 'epoch', 'durable')
local answers = {}

-- Return whether `one` comes after `other` among equal ends, where Redis compares bytes. (Lua's `<` uses the locale.)
local function behind(one, other)
  for at = 1, math.min(#one, #other) do
    local a, b = one:byte(at), other:byte(at)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- The rank of the first alert after that place. The alert that had the place may be gone, or have moved.
local low, high = redis.call('ZCOUNT', ENDS, '-inf', '(' .. score), redis.call('ZCOUNT', ENDS, '-inf', score)
while low < high do
  local middle = math.floor((low + high) / 2)
  if behind(redis.call('ZRANGE', ENDS, middle, middle)[1], id) then high = middle else low = middle + 1 end
end

local next_ones = redis.call('ZRANGE', ENDS, low, low + count - 1, 'WITHSCORES')
for at = 1, #next_ones, 2 do
  local key = PREFIX .. 'alert:' .. next_ones[at]
  local index = redis.call('HMGET', key, 'last', 'kind')
  local answer = {next_ones[at + 1], next_ones[at]}
  for revision = tonumber(index[1] or 0), 1, -1 do
    local place = redis.call('HGET', key, revision)
    local kind
    local found = place and redis.call('XRANGE', STREAM, place, place)[1]
    if found then
      answer[#answer + 1] = found
      for name = 1, #found[2], 2 do
        if found[2][name] == 'k' then kind = found[2][name + 1] end
      end
    end
    if kind == 'cancel' or OF[kind] == 'call' or (kind == 'revision' and index[2] ~= 'cancel') then break end
  end
  answers[#answers + 1] = answer
end
return {meta[1] or '', meta[2] or '', answers}
