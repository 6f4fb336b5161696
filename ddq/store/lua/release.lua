-- release: hands a lease back: READY again, and the attempt does not count.
-- flags: allow-oom
-- argv: per task, 2 each: id, token
-- returns: per task {status, revision}; fewer than tasks: send the rest again
-- returns:   OK           done, now or by an earlier release with this token
-- returns:   LEASE_LOST   the token does not hold; nothing changed
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local released = 0
local results = each_item(ARGS + 1, 2, function(t, at)
  local token = ARGV[at + 1]
  if not t then
    return unreadable(t, 0)
  elseif t.state == LEASED and t.token == token then
    t.settled_token, t.verdict, t.token = token, RELEASED, ''
    t.attempt = t.attempt - 1
    transition('release', t, READY, t.due_ms)
    released = released + 1
    return { 'OK', t.revision }
  elseif t.settled_token == token and t.verdict == RELEASED then
    return { 'OK', t.revision }
  end
  return { 'LEASE_LOST', t.revision }
end)
if released > 0 then hint('ready', released) end
return finish(results)
