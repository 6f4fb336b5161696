-- nack: ends a leased attempt without success: SCHEDULED again, or DEAD.
-- flags: allow-oom
-- argv: per task, 6 each:
-- argv:   id
-- argv:   token
-- argv:   delay_ms        -1: by the retry policy
-- argv:   dead            '1': dead now, whatever attempts are left
-- argv:   error           kept as the task's last error
-- argv:   random          a number in [0, 1) for the jitter
-- returns: per task {status, state, revision, due_ms}; fewer than tasks: send the rest again
-- returns:   OK           done, now or by an earlier nack with this token
-- returns:   LEASE_LOST   the token does not hold; nothing changed
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local head_ms = first_score(K.tasks)
local earliest_ms
local results = each_item(ARGS + 1, 6, function(t, at)
  local token, delay_ms = ARGV[at + 1], tonumber(ARGV[at + 2])
  if not t then
    return unreadable(t, 0, 0, 0)
  elseif t.state == LEASED and t.token == token then
    local dead = ARGV[at + 3] == '1' or t.attempt >= policy_of(t.payload).max_attempts
    t.settled_token, t.verdict, t.token = token, dead and DEAD_LETTERED or RETRIED, ''
    t.last_error = ARGV[at + 4]
    end_attempt('nack', t, delay_ms, dead, tonumber(ARGV[at + 5]))
    if t.state == SCHEDULED then earliest_ms = earlier(earliest_ms, t.due_ms) end
    return { 'OK', t.state, t.revision, t.due_ms }
  elseif t.settled_token == token and (t.verdict == RETRIED or t.verdict == DEAD_LETTERED) then
    return { 'OK', t.verdict == DEAD_LETTERED and DEAD or SCHEDULED, t.revision, t.due_ms }
  end
  return { 'LEASE_LOST', t.state, t.revision, 0 }
end)
hint_if_earlier(head_ms, earliest_ms)
return finish(results)
