-- Create the store if it does not exist.
--
--   ->    life, the number of the last change
return {life(), tonumber(redis.call('HGET', META, 'changes'))}
