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
local results = {}
for at = ARGS + 2, #ARGV, 2 do
  if has_read_enough() then break end
  local id, revoke = ARGV[at], ARGV[at + 1] == '1'
  local t = load(id)
  local done = recall_numbers('cancel', request_id, id, 2)
  local result
  if done then
    -- The id has another incarnation by now; the one that was cancelled is in the record.
    result = { 'ALREADY', done[1], done[2] }
  elseif done == false or t == false then
    result = { 'MALFORMED', 0, 0 }
  elseif t == nil then
    result = { 'NOT_FOUND', 0, 0 }
  elseif t.state == CANCELLED then
    result = { 'ALREADY', t.revision, t.incarnation }
  elseif t.state > LEASED then
    result = { 'FINISHED', t.revision, t.incarnation }
  elseif t.state == LEASED and not revoke then
    result = { 'LEASED', t.revision, t.incarnation }
  else
    t.token, t.settled_token, t.verdict = '', '', NONE
    t.request_id = request_id
    transition('cancel', t, CANCELLED, now)
    result = { 'CANCELLED', t.revision, t.incarnation }
  end
  results[#results + 1] = result
end
return finish(results)
