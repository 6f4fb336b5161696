-- resign: a leader that stops hands over at once instead of letting its lease run out, and says
-- so with a hint of the shard's next wake-up; 2^53 - 1 for none.
-- flags: allow-oom
-- argv: nonce             it leads by
-- argv: epoch
-- returns: {status}
-- returns:   RESIGNED     the next to ask leads
-- returns:   NOT_LEADER   it no longer led; nothing changed
local refusal = begin()
if refusal then return refusal end

local status = 'NOT_LEADER'
if is_leader(ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])) then
  status = 'RESIGNED'
  redis.call('HSET', K.control, 'leader_until_ms', 0)
  redis.call('HDEL', K.control, 'nonce', 'leader_rank')
  local due, expiry = next_wake_up()
  local next_ms = due
  if expiry >= 0 and (due < 0 or expiry < due) then next_ms = expiry end
  -- Also with nothing to do: a task that is added a moment later would otherwise wait until the
  -- lease of the resigned leader is over, as far as the others know.
  hint('free', next_ms >= 0 and next_ms or MAX_MS)
end
return finish({ status })
