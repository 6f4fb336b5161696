-- heartbeat: a write of its own, for a barrier that has no other write to speak of.
-- prelude: clock (it has one key of its own)
-- flags: allow-oom
-- keys: ddq:heartbeat:{...}, in a slot of the node
-- argv: none
-- returns: {}
redis.call('SET', KEYS[1], '1', 'PX', 3600000)
return {}
