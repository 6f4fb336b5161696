-- The records of tasks and requests. ddq/store/records.py packs and unpacks the same bytes.

-- payloads[id], written once: format, incarnation, enqueued ms, first due ms, then what the
-- caller packed: retry policy, digest, headers, payload (ddq/store/records.py).
local PAYLOAD_HEAD = '>BI8I8I8c28c16I4'
local POLICY = '>I4I8I8I4I4'
local PAYLOAD_HEAD_BYTES = 73

local function unpack_payload(record)
  if not record or #record < PAYLOAD_HEAD_BYTES or record:byte(1) ~= FORMAT then return nil end
  local _, incarnation, enqueued_ms, due_ms, policy, digest, headers_bytes =
    struct.unpack(PAYLOAD_HEAD, record)
  if #record < PAYLOAD_HEAD_BYTES + headers_bytes or incarnation > MAX_MS then return nil end
  return {
    incarnation = incarnation, enqueued_ms = enqueued_ms, due_ms = due_ms, policy = policy,
    digest = digest, headers_bytes = headers_bytes,
  }
end

-- The retry policy of a task; few scripts need it.
local function policy_of(payload)
  local p = {}
  p.max_attempts, p.initial_backoff_ms, p.max_backoff_ms, p.multiplier_milli, p.jitter_milli =
    struct.unpack(POLICY, payload.policy)
  return p
end

-- states[id]: absent for a task that was never touched since its enqueue.
local STATE_RECORD = '>BBI8I8I4I4I4I8I8BBc0Bc0Bc0Bc0I2c0'

local function pack_state(t)
  local record = struct.pack(STATE_RECORD, FORMAT, t.state, t.revision,
    t.incarnation, t.promotion, t.attempt, t.run, t.due_ms, t.updated_ms, t.verdict,
    #t.token, t.token, #t.settled_token, t.settled_token, #t.digest, t.digest,
    #t.request_id, t.request_id, #t.last_error, t.last_error)
  -- Came with 0.3: at the end, where 0.2 does not look, and only where there is something to
  -- count. 0.2 drops it when it writes the record: the task may then be snoozed more often.
  if t.snoozes == 0 then return record end
  return record .. struct.pack('>I4', t.snoozes)
end

local function unpack_state(record)
  if record:byte(1) ~= FORMAT then return nil end
  -- A record that is shorter than it says is an error of struct.unpack.
  local whole, _, state, revision, incarnation, promotion, attempt, run_number, due_ms, updated_ms,
    verdict, token, settled_token, digest, request_id, last_error, at =
    pcall(struct.unpack, STATE_RECORD, record)
  if not whole or not NAME[state] or revision > MAX_MS or incarnation > MAX_MS then return nil end
  return {
    state = state, revision = revision, incarnation = incarnation, promotion = promotion,
    attempt = attempt, run = run_number, due_ms = due_ms, updated_ms = updated_ms,
    verdict = verdict, token = token, settled_token = settled_token, digest = digest,
    request_id = request_id, last_error = last_error,
    snoozes = #record >= at + 3 and struct.unpack('>I4', record, at) or 0,
    -- For load(): a table that grows later is built twice.
    id = false, record = false, payload = false, cut_from = false,
  }
end

-- A task that the purge cut covers is gone for every reader, though the sweep has not yet
-- collected it: no transition can carry it past the sweep.
local function is_cut(t)
  return HELD[t.state] and t.incarnation <= control.purge_cut
end

-- A part of a hash's field cannot be read, so a task costs its whole payload. A script that has read
-- this much answers for what it has done; its caller sends the rest again.
local LOAD_BOUND = 4194304
-- Records that are read together: one until their size is known, and again when one was large. So what
-- is read beyond the bound is at most the rest of one such group.
local AHEAD, LARGE_BYTES = 16, 16384
local ahead = 1
local loaded_bytes = 0

-- Reads the records of the id at a place of a list, unless they are known, and of some that follow.
local function read_ahead(list, first, width)
  local payloads, states = hashes[K.payloads], hashes[K.states]
  if payloads[list[first]] ~= nil then return end
  local ids = {}
  for at = first, math.min(#list, first + (ahead - 1) * width), width do
    if payloads[list[at]] == nil then ids[#ids + 1] = list[at] end
  end
  local payload_records = redis.call('HMGET', K.payloads, unpack(ids))
  local state_records = redis.call('HMGET', K.states, unpack(ids))
  local largest_bytes = 0
  for i, id in ipairs(ids) do
    local payload, state = payload_records[i], state_records[i]
    payloads[id] = payload
    -- What was changed or read already stays.
    if states[id] == nil then states[id] = state end
    local bytes = (payload and #payload or 0) + (state and #state or 0)
    loaded_bytes = loaded_bytes + bytes
    if bytes > largest_bytes then largest_bytes = bytes end
  end
  ahead = largest_bytes > LARGE_BYTES and 1 or AHEAD
end

-- Whether an id's records are to be left for the next script; those that are read already are not.
local function has_read_enough(id)
  return loaded_bytes >= LOAD_BOUND and hashes[K.payloads][id] == nil
end

-- Returns the task, nil when the id is unknown, or false when its records cannot be read.
local function load(id)
  if hashes[K.payloads][id] == nil then read_ahead({ id }, 1, 1) end
  local record, state = hashes[K.payloads][id], get_field(K.states, id)
  if not record and not state then return nil end
  local payload = unpack_payload(record)
  local t
  if state then
    t = unpack_state(state)
    if not t or (HELD[t.state] and (not payload or payload.incarnation ~= t.incarnation)) then
      return false
    end
    t.payload = HELD[t.state] and payload or nil
  else
    if not payload then return false end
    t = {
      state = SCHEDULED, revision = payload.incarnation, incarnation = payload.incarnation,
      promotion = 0, attempt = 0, run = 1, due_ms = payload.due_ms, updated_ms = 0,
      verdict = NONE, token = '', settled_token = '', digest = '', request_id = '',
      last_error = '', snoozes = 0, payload = payload,
    }
  end
  t.id = id
  t.record = record or ''
  if is_cut(t) then
    t.cut_from = t.state
    t.state = PURGED
  end
  return t
end

-- Request records: what a request_id did, so that a repeat gets the same answer.
-- The length goes first: request_id and id may hold any separator.
local function request_field(kind, request_id, id)
  return kind .. ':' .. #request_id .. ':' .. request_id .. ':' .. (id or '')
end

local function recall(kind, request_id, id)
  if request_id == '' then return nil end
  return get_field(K.requests, request_field(kind, request_id, id)) or nil
end

-- A record of so many numbers; nil when there is none, false when it cannot be read.
local function recall_numbers(kind, request_id, id, how_many)
  local record = recall(kind, request_id, id)
  if not record then return nil end
  if #record ~= 8 * how_many then return false end
  local numbers = { struct.unpack('>' .. ('I8'):rep(how_many), record) }
  for i = 1, how_many do
    if numbers[i] > MAX_MS then return false end
  end
  return numbers
end

local function remember(kind, request_id, id, value, until_ms)
  if request_id == '' then return end
  local field = request_field(kind, request_id, id)
  local keep_ms = CALL.not_after_ms > 0 and CALL.not_after_ms or now
  keep_ms = math.max(keep_ms + 2 * CALL.max_skew_ms, until_ms or 0)
  set_field(K.requests, field, value)
  set_score(K.request_expiry, field, as_score(keep_ms))
end
