-- heartbeat: writes to the shard, so that a barrier has a write to confirm when there is no other.
-- prelude: clock (it has one key of its own)
-- flags: allow-oom
-- keys: ddq:heartbeat:{...}, in a slot of the node
-- argv: none
-- returns: {}
redis.call('SET', KEYS[1], '1', 'PX', 3600000)
return {}
