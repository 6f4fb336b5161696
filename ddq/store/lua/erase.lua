-- erase: the last step of deleting a topic: forgets a shard's tombstones, request records and
-- journal, a bounded number a call; control keeps the uid, sequence and clock mark. purge
-- comes first.
-- flags: allow-oom
-- argv: limit             entries of each kind
-- returns: {done}
-- returns:   done         0: call again
local refusal = begin({ any_topic = true, while_deleting = true })
if refusal then return refusal end

-- Gone already, or another life of the name: nothing of this one is left.
if control.uid ~= CALL.uid or control.erased == 1 then return finish({ 1 }) end
if control.deleting ~= 1 then return finish({ 0 }) end

local limit = tonumber(ARGV[ARGS + 1])
local left = 0
for _, pair in ipairs({ { K.finished, K.states }, { K.request_expiry, K.requests } }) do
  for _, member in ipairs(run('ZRANGE', pair[1], 0, limit - 1)) do
    set_score(pair[1], member, false)
    set_field(pair[2], member, false)
  end
  left = left + run('ZCARD', pair[1])
end
local entries = run('XLEN', K.journal)
if entries > 0 then
  left = left + entries - run('XTRIM', K.journal, 'MAXLEN', math.max(0, entries - limit))
end
for _, key in ipairs({ K.tasks, K.ready, K.leases, K.dead }) do
  left = left + run('ZCARD', key)
end
if left > 0 then return finish({ 0 }) end

-- What the hashes still hold can only have been put there by hand. UNLINK frees it in the
-- background. The sequence continues, so that revisions grow over the lives of a name too.
for i = 1, #KEYS do run('UNLINK', KEYS[i]) end
redis.call('HSET', K.control, 'format', math.max(1, control.format), 'uid', CALL.uid, 'erased', 1)
return finish({ 1 })
