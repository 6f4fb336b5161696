-- snooze: puts a leased task off: SCHEDULED again after a delay, and the attempt does not count.
-- flags: allow-oom
-- argv: max_snoozes       of one run
-- argv: per task, 3 each: id, token, delay_ms
-- returns: per task {status, revision, due_ms}; fewer than tasks: send the rest again
-- returns:   OK           done, now or by an earlier snooze with this token
-- returns:   SNOOZED_OUT  the run was snoozed max_snoozes times already; the lease still holds
-- returns:   LEASE_LOST   the token does not hold; nothing changed
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local max_snoozes = tonumber(ARGV[ARGS + 1])
local head_ms = first_score(K.tasks)
local earliest_ms
local results = each_item(ARGS + 2, 3, function(t, at)
  local token, delay_ms = ARGV[at + 1], tonumber(ARGV[at + 2])
  if not t then
    return unreadable(t, 0, 0)
  elseif t.state == LEASED and t.token == token then
    if t.snoozes >= max_snoozes then return { 'SNOOZED_OUT', t.revision, 0 } end
    t.settled_token, t.verdict, t.token = token, SNOOZED, ''
    t.attempt = t.attempt - 1
    t.snoozes = t.snoozes + 1
    t.due_ms = now + delay_ms
    transition('snooze', t, SCHEDULED, t.due_ms)
    earliest_ms = earlier(earliest_ms, t.due_ms)
    return { 'OK', t.revision, t.due_ms }
  elseif t.settled_token == token and t.verdict == SNOOZED then
    return { 'OK', t.revision, t.due_ms }
  end
  return { 'LEASE_LOST', t.revision, 0 }
end)
hint_if_earlier(head_ms, earliest_ms)
return finish(results)
