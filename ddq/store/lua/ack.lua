-- ack: LEASED -> SUCCEEDED for the holder of the token. A token that expired is good until
-- another worker got the task, also when the task has been put back for a retry.
-- flags: allow-oom
-- argv: per task, 2 each: id, token
-- returns: per task {status, revision}; fewer than tasks: send the rest again
-- returns:   OK           finished, now or by an earlier ack with this token
-- returns:   LEASE_LOST   the token does not hold; nothing changed
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

return finish(each_item(ARGS + 1, 2, function(t, at)
  local token = ARGV[at + 1]
  if not t then
    return unreadable(t, 0)
  elseif #token > 0 and t.token == token and t.state <= LEASED then
    t.settled_token, t.verdict, t.token = token, ACKED, ''
    transition('ack', t, SUCCEEDED, now)
    return { 'OK', t.revision }
  elseif t.settled_token == token and t.verdict == ACKED then
    return { 'OK', t.revision }
  end
  return { 'LEASE_LOST', t.revision }
end))
