-- reset_clock: an operator sets the clock mark back to the store's clock, after that has been ahead.
-- A leadership granted by the wrong time ends: its lease would last as long as the clock was
-- ahead. Due times and leases of tasks stay as they were given.
-- flags: allow-oom
-- argv: none
-- returns: {status, mark_before_ms, mark_ms}
-- returns:   OK           the mark is the store's clock
-- returns: where the operator's clock and the store's differ by too much: CLOCK_UNSAFE, as any script
local refusal = begin({ any_topic = true, while_deleting = true, any_mark = true })
if refusal then return refusal end

local before_ms = control.mark_ms
now = now_ms()
redis.call('HSET', K.control, 'leader_until_ms', 0)
redis.call('HDEL', K.control, 'nonce')
hint('due', now)
return finish({ 'OK', before_ms, now })
