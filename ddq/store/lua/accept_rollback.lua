-- accept_rollback: an operator has seen that the store lost confirmed writes, and lets it continue.
-- Every process forgets what was confirmed to it before, when it sees a greater recovery number.
-- flags: allow-oom
-- argv: recovery          ms of the operator's clock: greater than any that was lost with the rest
-- returns: {status, recovery}
-- returns:   OK           no process is refused for what was confirmed before
local refusal = begin({ any_topic = true, while_deleting = true, any_clock = true })
if refusal then return refusal end

control.recovery = math.max(control.recovery + 1, tonumber(ARGV[ARGS + 1]))
redis.call('HSET', K.control, 'recovery', string.format('%.0f', control.recovery))
return finish({ 'OK', control.recovery })
