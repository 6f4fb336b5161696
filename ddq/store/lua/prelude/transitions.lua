-- How a task changes: transition() is the one way, and all others end in it.

-- Of the scheduler that this call is of; nil for every other caller. The journal has a digest of the
-- nonce, since the nonce is what entitles its owner to move tasks.
local acting_epoch, acting_nonce

local function journal(op, t, from)
  if control.journal ~= 1 then return end
  add_entry(K.journal, 'MAXLEN', '~', control.journal_max, '*',
    'op', op, 'id', id_text(t.id), 'incarnation', t.incarnation, 'revision', t.revision,
    'from', from and NAME[from] or 'none', 'to', NAME[t.state], 'promotion', t.promotion,
    'attempt', t.attempt, 'run', t.run, 'due_ms', t.due_ms, 'at_ms', now,
    'epoch', acting_epoch or control.epoch,
    'owner', acting_nonce and redis.sha1hex(acting_nonce):sub(1, 16) or '', 'lineage', CALL.lineage)
end

-- Bytes of headers and payload that a held task has in the counter: none of one that was created
-- before max_bytes was set.
local function counted_bytes(t)
  if not HELD[t.cut_from or t.state] or t.incarnation <= control.bytes_from then return 0 end
  local record = get_field(K.payloads, t.id)
  return record and math.max(0, #record - head_bytes(record)) or 0
end

-- The one way a task changes: index, counters, record and journal move together.
-- score: due ms, expiry ms, or the time of its end, as the index it goes to wants.
local function transition(op, t, to, score)
  local from = t.cut_from or t.state
  if INDEX[from] ~= INDEX[to] then set_score(INDEX[from], t.id, false) end
  set_score(INDEX[to], t.id, as_score(score))
  if HELD[from] then count(NAME[from], -1) end
  if control.max_bytes > 0 and not HELD[to] then count('bytes', -counted_bytes(t)) end
  count(NAME[to], 1)
  control.sequence = control.sequence + 1
  control.lineage = CALL.lineage
  t.state, t.cut_from = to, nil
  t.revision = control.sequence
  t.updated_ms = now
  if not HELD[to] then
    -- The tombstone: enough to answer a late cancel or repeat truthfully.
    set_field(K.payloads, t.id, false)
    if t.payload then t.digest = t.payload.digest end
    t.last_error = ''
  end
  set_field(K.states, t.id, pack_state(t))
  journal(op, t, from)
end

-- A new incarnation of an id that nothing holds. head, content: see pack_payload.
local function create(id, since_ms, due_ms, head, digest, content)
  control.sequence = control.sequence + 1
  control.lineage = CALL.lineage
  local t = {
    id = id, state = SCHEDULED, revision = control.sequence, incarnation = control.sequence,
    promotion = 0, attempt = 0, run = 1, due_ms = due_ms,
  }
  set_field(K.payloads, id,
    pack_payload(t.incarnation, since_ms, due_ms, head, digest, content))
  set_score(K.tasks, id, as_score(due_ms))
  count('enqueued', 1)
  count('scheduled', 1)
  if control.max_bytes > 0 then count('bytes', #content) end
  journal('enqueue', t, nil)
  return t
end

-- The tombstone goes at once, because the id gets another incarnation.
local function forget(id)
  set_score(K.finished, id, false)
  set_field(K.states, id, false)
end

local function purge_task(t)
  t.token = ''
  transition('purge', t, PURGED, now)
end

-- For scripts that walk an index: the task behind one of its entries, if it really is in
-- that state. An entry that was written or damaged by hand is removed, and
-- counted, so that it cannot wedge the shard:
--   nothing behind it, or a task in another state: the entry is removed (counter stray: orphaned);
--   a payload whose state cannot be read: the task is dead, and can be redriven;
--   a state whose payload cannot be read: the entry is removed, the records stay (counter set_aside: quarantined).
local function examine(id, expected)
  local t = load(id)
  if t and t.cut_from == expected then
    purge_task(t)
    return nil
  end
  if t and t.state == expected then return t end
  if t == false then
    local payload = unpack_payload(get_field(K.payloads, id))
    local state = get_field(K.states, id)
    state = state and unpack_state(state)
    if payload and not state then
      t = {
        id = id, state = expected, incarnation = payload.incarnation, promotion = 0,
        attempt = 0, run = 1, due_ms = payload.due_ms, verdict = NONE, token = '',
        settled_token = '', digest = '', request_id = '', snoozes = 0, payload = payload,
        last_error = 'the state record could not be read',
      }
      transition('set_aside', t, DEAD, now)
      return nil
    end
    if state and state.state == expected then
      set_score(INDEX[expected], id, false)
      count(NAME[expected], -1)
      count('set_aside', 1)
      if control.max_bytes > 0 then
        count('bytes', -counted_bytes({ id = id, state = expected, incarnation = state.incarnation }))
      end
      return nil
    end
  end
  set_score(INDEX[expected], id, false)
  count('stray', 1)
  return nil
end

-- min(max_backoff, initial * multiplier^(attempt - 1)), and on top a random part of up to
-- jitter times that: never sooner than the first term.
local function backoff_ms(policy, attempt, random)
  if policy.initial_backoff_ms == 0 then return 0 end
  local base = policy.initial_backoff_ms * (policy.multiplier_milli / 1000) ^ (attempt - 1)
  base = math.min(base, policy.max_backoff_ms)
  return math.ceil(base + base * policy.jitter_milli / 1000 * random)
end

-- Ends an attempt without success. delay_ms < 0: by the retry policy.
local function end_attempt(op, t, delay_ms, dead, random)
  local policy = policy_of(t.payload)
  if dead or t.attempt >= policy.max_attempts then
    t.token = ''
    transition(op, t, DEAD, now)
    return
  end
  if delay_ms < 0 then delay_ms = backoff_ms(policy, t.attempt, random) end
  t.due_ms = now + delay_ms
  transition(op, t, SCHEDULED, t.due_ms)
end
