-- Write what devices were told.
--
--   ARGV  see `note` of the prelude
--   ->    life, writes, {shard, …} that were refused
local refused = note(1)
local answer = wrote()
answer[3] = refused
return answer
