-- reschedule: gives a SCHEDULED or READY task another due time; a ready one is promoted again.
-- flags: allow-oom
-- argv: request_id        what it did is remembered: a repeat never undoes a later one
-- argv: id
-- argv: schedule          'delay' (ms from now) or 'at' (ms since 1970)
-- argv: value_ms
-- argv: expected          revision; '' for any
-- returns: {status, revision, due_ms}
-- returns:   OK           done, now or by this request before
-- returns:   LEASED       a worker holds it
-- returns:   FINISHED     it has ended
-- returns:   REVISION     the task is at another revision
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the records of the id or the request cannot be read
local refusal = begin()
if refusal then return refusal end

local request_id, id, schedule = ARGV[ARGS + 1], name_of(ARGV[ARGS + 2]), ARGV[ARGS + 3]
local value_ms, expected = tonumber(ARGV[ARGS + 4]), ARGV[ARGS + 5]
local done = recall_numbers('reschedule', request_id, id, 2)
if done then return finish({ 'OK', done[1], done[2] }) end
local t = load(id)
if done == false or t == false then return finish({ 'MALFORMED', 0, 0 }) end
if t == nil then return finish({ 'NOT_FOUND', 0, 0 }) end
if t.state > LEASED then return finish({ 'FINISHED', t.revision, t.due_ms }) end
if t.state == LEASED then return finish({ 'LEASED', t.revision, t.due_ms }) end
if expected ~= '' and tonumber(expected) ~= t.revision then
  return finish({ 'REVISION', t.revision, t.due_ms })
end

local head_ms = first_score(K.tasks)
t.due_ms = schedule == 'delay' and now + value_ms or math.max(value_ms, now)
-- A client has taken charge of the task: the token of a lapsed lease no longer settles it.
t.token = ''
transition('reschedule', t, SCHEDULED, t.due_ms)
remember('reschedule', request_id, id, struct.pack('>I8I8', t.revision, t.due_ms))
hint_if_earlier(head_ms, t.due_ms)
return finish({ 'OK', t.revision, t.due_ms })
