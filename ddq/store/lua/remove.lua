-- remove: cancels by id: SCHEDULED or READY -> CANCELLED, LEASED too if the lease may be
-- revoked. One lookup in the ID -> payload hash and one script: no window between check and
-- removal in which the task could be delivered.
-- flags: allow-oom
-- argv: request_id        '' for none
-- argv: per task, 2 each: id, revoke ('1': also a leased one)
-- returns: per task {status, revision, incarnation}; fewer than tasks: send the rest again
-- returns:   CANCELLED    by this call
-- returns:   ALREADY      by an earlier call, or this one repeated
-- returns:   LEASED       a worker holds it, and the lease was not to be revoked
-- returns:   FINISHED     it has succeeded, is dead or purged: too late
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the records of the id or the request cannot be read
local refusal = begin()
if refusal then return refusal end

local request_id = ARGV[ARGS + 1]
return finish(each_item(ARGS + 2, 2, function(t, at)
  local id, revoke = ARGV[at], ARGV[at + 1] == '1'
  local done = recall_numbers('cancel', request_id, id, 2)
  if done then
    -- The id has another incarnation by now; the one that was cancelled is in the record.
    return { 'ALREADY', done[1], done[2] }
  elseif done == false or not t then
    return unreadable(done ~= false and t, 0, 0)
  elseif t.state == CANCELLED then
    return { 'ALREADY', t.revision, t.incarnation }
  elseif t.state > LEASED then
    return { 'FINISHED', t.revision, t.incarnation }
  elseif t.state == LEASED and not revoke then
    return { 'LEASED', t.revision, t.incarnation }
  end
  t.token, t.settled_token, t.verdict = '', '', NONE
  t.request_id = request_id
  transition('cancel', t, CANCELLED, now)
  return { 'CANCELLED', t.revision, t.incarnation }
end))
