-- upgrade: brings a shard to the form that the operator has allowed for the store. From then on a ddq that does not
-- know the form is refused. Payload records that are there already are read as they are.
-- flags: allow-oom
-- argv: format            to be reached
-- argv: policy            the topic's retry policy, packed (records.py)
-- returns: {done}
-- returns:   done         1: the shard has this form
local refusal = begin()
if refusal then return refusal end

control.format = math.max(control.format, tonumber(ARGV[ARGS + 1]))
redis.call('HSET', K.control, 'format', control.format)
keep_policy(ARGV[ARGS + 2])
return finish({ 1 })
