-- The records of tasks and requests. ddq/store/records.py packs and unpacks the same bytes.

-- payloads[id], written once: format, incarnation, enqueued ms, first due ms, then what the
-- caller packed: retry policy, digest, headers, payload (ddq/store/records.py).
local PAYLOAD_HEAD = '>BI8I8I8I4I8I8I4I4c16I4'
local PAYLOAD_HEAD_BYTES = 73

local function unpack_payload(record)
  if not record or #record < PAYLOAD_HEAD_BYTES or record:byte(1) ~= FORMAT then return nil end
  local p = {}
  local _
  _, p.incarnation, p.enqueued_ms, p.due_ms, p.max_attempts, p.initial_backoff_ms,
    p.max_backoff_ms, p.multiplier_milli, p.jitter_milli, p.digest, p.headers_bytes =
    struct.unpack(PAYLOAD_HEAD, record)
  if #record < PAYLOAD_HEAD_BYTES + p.headers_bytes or p.incarnation > MAX_MS then return nil end
  return p
end

-- states[id]: absent for a task that was never touched since its enqueue.
local STATE_HEAD = '>BBI8I8I4I4I4I8I8B'
local STATE_HEAD_BYTES = 47

local function pack_state(t)
  local record = struct.pack(STATE_HEAD .. 'Bc0Bc0Bc0Bc0I2c0', FORMAT, t.state, t.revision,
    t.incarnation, t.promotion, t.attempt, t.run, t.due_ms, t.updated_ms, t.verdict,
    #t.token, t.token, #t.settled_token, t.settled_token, #t.digest, t.digest,
    #t.request_id, t.request_id, #t.last_error, t.last_error)
  -- Came with 0.3: at the end, where 0.2 does not look, and only where there is something to
  -- count. 0.2 drops it when it writes the record: the task may then be snoozed more often.
  if t.snoozes == 0 then return record end
  return record .. struct.pack('>I4', t.snoozes)
end

local function unpack_state(record)
  if #record < STATE_HEAD_BYTES or record:byte(1) ~= FORMAT then return nil end
  local t = {}
  local _, at
  _, t.state, t.revision, t.incarnation, t.promotion, t.attempt, t.run, t.due_ms,
    t.updated_ms, t.verdict, at = struct.unpack(STATE_HEAD, record)
  for _, name in ipairs({ 'token', 'settled_token', 'digest', 'request_id', 'last_error' }) do
    local length_bytes = name == 'last_error' and 2 or 1
    if #record < at + length_bytes - 1 then return nil end
    local length = struct.unpack(length_bytes == 2 and '>I2' or 'B', record, at)
    at = at + length_bytes
    if #record < at + length - 1 then return nil end
    t[name] = record:sub(at, at + length - 1)
    at = at + length
  end
  t.snoozes = #record >= at + 3 and struct.unpack('>I4', record, at) or 0
  if not NAME[t.state] or t.revision > MAX_MS or t.incarnation > MAX_MS then return nil end
  return t
end

-- A task that the purge cut covers is gone for every reader, though the sweep has not yet
-- collected it: no transition can carry it past the sweep.
local function is_cut(t)
  return HELD[t.state] and t.incarnation <= control.purge_cut
end

-- A part of a hash's field cannot be read, so a task costs its whole payload. A script that has read
-- this much answers for what it has done; its caller sends the rest again.
local function has_read_enough()
  return loaded_bytes >= LOAD_BOUND
end

-- Returns the task, nil when the id is unknown, or false when its records cannot be read.
local function load(id)
  local record = redis.call('HGET', K.payloads, id)
  local state = redis.call('HGET', K.states, id)
  loaded_bytes = loaded_bytes + (record and #record or 0) + (state and #state or 0)
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
  return redis.call('HGET', K.requests, request_field(kind, request_id, id)) or nil
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
  redis.call('HSET', K.requests, field, value)
  redis.call('ZADD', K.request_expiry, string.format('%.0f', keep_ms), field)
end
