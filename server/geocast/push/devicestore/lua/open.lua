-- Begin the history of the store, if there is none.
--
--   ->    life, the number of the last change
return {life(), tonumber(redis.call('HGET', META, 'changes'))}
