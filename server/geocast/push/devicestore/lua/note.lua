-- Write the lines that say what devices were sent (DevS5 to DevS7).
--
--   ARGV  as for `note` in the prelude
--   ->    life, writes, {shard, …}: the shards whose lines were refused
local refused = note(1)
local answer = wrote()
answer[3] = refused
return answer
