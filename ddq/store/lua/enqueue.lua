-- enqueue: a new task becomes SCHEDULED, or an id that is taken is answered for.
-- flags: none (a full store refuses new tasks)
-- argv: request_id        names the call for what replaces; '' for none
-- argv: per task, 9 each:
-- argv:   id
-- argv:   schedule        'delay' (ms from now) or 'at' (ms since 1970)
-- argv:   value_ms
-- argv:   on_conflict     'fail', 'existing', 'replace_scheduled', 'replace_finished' or 'debounce'
-- argv:   expected        revision that a replacement expects; '' for any
-- argv:   limit_ms        with 'debounce': how long a task may be pushed back in all; else 0
-- argv:   digest          16 bytes over the content as it was sent
-- argv:   head            retry policy and length of the headers (records.py)
-- argv:   content         headers and payload
-- returns: per task {status, state, revision, incarnation, due_ms}; fewer than tasks: send the rest again
-- returns:   CREATED, EXISTS       it is there now; it was there already
-- returns:   CONFLICT              the id is taken by other content
-- returns:   READY, LEASED, FINISHED, SCHEDULED  the replacement does not apply in this state
-- returns:   REVISION              the task is at another revision
-- returns:   FULL                  the shard holds max_tasks already
-- returns:   FULL_BYTES            with this task the shard would hold more than max_bytes
-- returns:   MALFORMED             the records of the id or the request cannot be read
local refusal = begin()
if refusal then return refusal end

local request_id = ARGV[ARGS + 1]
local head_ms = first_score(K.tasks)
local earliest_ms
local held = control['n:scheduled'] + control['n:ready'] + control['n:leased'] + control['n:dead']

local function describe(status, t)
  return { status, t.state, t.revision, t.incarnation, t.due_ms }
end

-- Why a replacement does not apply, or nil if it does.
local function refuse_replacement(mode, t, expected)
  if expected ~= '' and tonumber(expected) ~= t.revision then return 'REVISION' end
  if mode == 'replace_scheduled' and t.state ~= SCHEDULED
      or mode == 'replace_finished' and t.state < SUCCEEDED
      or mode == 'debounce' and t.state == LEASED then
    return t.state < SUCCEEDED and NAME[t.state]:upper() or 'FINISHED'
  end
end

-- When the first of those was enqueued that took each other's place without having run: what the
-- limit of a debounce counts from. One that has been tried, or was put off by its worker, has run:
-- were it pushed back by the time of its first enqueue, each event would cut its backoff short.
local function debounced_since(t)
  local waits = t and not t.cut_from and t.state <= READY
  if not waits or t.attempt > 0 or t.run > 1 or t.verdict == SNOOZED then return now end
  return math.min(t.payload.enqueued_ms, now)
end

-- Ends what holds the id, so that the new incarnation can take it. The end of a dead or cut
-- task counts as purged; that of a scheduled or ready one as cancelled.
local function make_room(t)
  if t.cut_from or t.state == DEAD then
    purge_task(t)
    held = held - 1
  elseif t.state <= READY then
    transition('replace', t, CANCELLED, now)
    held = held - 1
  end
  -- A cancel of the old incarnation that is repeated later must not reach the new one.
  if t.state == CANCELLED and t.request_id ~= '' then
    remember('cancel', t.request_id, t.id, struct.pack('>I8I8', t.revision, t.incarnation),
      now + control.retention_ms)
  end
  forget(t.id)
end

local results = each_item(ARGS + 2, 9, function(t, at)
  local id, schedule, value_ms = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local mode, expected, limit_ms = ARGV[at + 3], ARGV[at + 4], tonumber(ARGV[at + 5])
  local digest, head, content = ARGV[at + 6], ARGV[at + 7], ARGV[at + 8]
  local replacing = mode ~= 'fail' and mode ~= 'existing'
  local done
  if replacing then done = recall_numbers('replace', request_id, id, 3) end
  if done then
    return { 'CREATED', SCHEDULED, done[1], done[2], done[3] }
  elseif done == false or t == false then
    return unreadable(false, 0, 0, 0, 0)
  elseif t and not replacing then
    local same = digest == (t.payload and t.payload.digest or t.digest)
    return describe((same or mode == 'existing') and 'EXISTS' or 'CONFLICT', t)
  elseif t and refuse_replacement(mode, t, expected) then
    return describe(refuse_replacement(mode, t, expected), t)
  elseif control.max_tasks > 0 and held >= control.max_tasks
      and not (t and (HELD[t.state] or t.cut_from)) then
    return { 'FULL', 0, 0, 0, 0 }
  elseif control.max_bytes > 0 and control['n:bytes'] + (counts.bytes or 0) + #content
      - (t and counted_bytes(t) or 0) > control.max_bytes then
    return { 'FULL_BYTES', 0, 0, 0, 0 }
  elseif not t and replacing and expected ~= '' then
    return { 'REVISION', 0, 0, 0, 0 }
  end
  local since_ms = mode == 'debounce' and debounced_since(t) or now
  local due_ms = schedule == 'delay' and now + value_ms or math.max(value_ms, now)
  if limit_ms > 0 then due_ms = math.max(now, math.min(due_ms, since_ms + limit_ms)) end
  if t then make_room(t) end
  t = create(id, since_ms, due_ms, head, digest, content)
  held = held + 1
  earliest_ms = earlier(earliest_ms, due_ms)
  if replacing then
    remember('replace', request_id, id,
      struct.pack('>I8I8I8', t.revision, t.incarnation, t.due_ms))
  end
  return describe('CREATED', t)
end)

hint_if_earlier(head_ms, earliest_ms)
return finish(results)
