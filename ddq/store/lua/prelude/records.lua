-- The records of tasks and requests. ddq/store/records.py packs and unpacks the same bytes.

local RECORD = 1         -- the first byte of a state record, and of a wide payload record

-- payloads[id], written once. Wide: RECORD, incarnation, enqueued ms, first due ms, retry policy, digest,
-- length of the headers; then headers and payload.
local WIDE_HEAD, WIDE_HEAD_BYTES = '>BI8I8I8c28c16I4', 73
-- Compact: first byte, incarnation, enqueued ms, ms from then to the first due time, digest; then the
-- retry policy and the length of the headers where the first byte says so; then headers and payload.
-- First byte: COMPACT_RECORD, HAS_HEADERS, and the number of the policy in control.policies, or OWN_POLICY.
local COMPACT_HEAD, COMPACT_HEAD_BYTES = '>BI6I6I5c16', 34
local COMPACT_RECORD, HAS_HEADERS, OWN_POLICY = 128, 64, 63
local MAX_I6, MAX_I5 = 2 ^ 48, 2 ^ 40
local POLICY, POLICY_BYTES = '>I4I8I8I4I4', 28
local NO_HEADERS = '\0\0\0\0'

-- Bytes of a payload record before headers and payload; of a damaged one it does not matter.
local function head_bytes(record)
  local first = record:byte(1)
  if not first or first < COMPACT_RECORD then return WIDE_HEAD_BYTES end
  local bytes = COMPACT_HEAD_BYTES
  if first % HAS_HEADERS == OWN_POLICY then bytes = bytes + POLICY_BYTES end
  if first >= COMPACT_RECORD + HAS_HEADERS then bytes = bytes + #NO_HEADERS end
  return bytes
end

local function unpack_compact(record, first)
  local head = head_bytes(record)
  if #record < head then return nil end
  local _, incarnation, enqueued_ms, wait_ms, digest = struct.unpack(COMPACT_HEAD, record)
  local number, policy, headers_bytes = first % HAS_HEADERS, nil, 0
  if number == OWN_POLICY then
    policy = record:sub(COMPACT_HEAD_BYTES + 1, COMPACT_HEAD_BYTES + POLICY_BYTES)
  elseif #control.policies < (number + 1) * POLICY_BYTES then
    return nil
  end
  if first >= COMPACT_RECORD + HAS_HEADERS then
    headers_bytes = struct.unpack('>I4', record, head - #NO_HEADERS + 1)
    if #record < head + headers_bytes then return nil end
  end
  return {
    incarnation = incarnation, enqueued_ms = enqueued_ms, due_ms = enqueued_ms + wait_ms,
    policy = policy, number = number, digest = digest, head_bytes = head, headers_bytes = headers_bytes,
  }
end

local function unpack_payload(record)
  local first = record and record:byte(1)
  if not first then return nil end
  if first >= COMPACT_RECORD then return unpack_compact(record, first) end
  if first ~= RECORD or #record < WIDE_HEAD_BYTES then return nil end
  local _, incarnation, enqueued_ms, due_ms, policy, digest, headers_bytes =
    struct.unpack(WIDE_HEAD, record)
  if #record < WIDE_HEAD_BYTES + headers_bytes or incarnation > MAX_MS then return nil end
  return {
    incarnation = incarnation, enqueued_ms = enqueued_ms, due_ms = due_ms, policy = policy,
    digest = digest, head_bytes = WIDE_HEAD_BYTES, headers_bytes = headers_bytes,
  }
end

-- The retry policy of a task, packed.
local function packed_policy(payload)
  if payload.policy then return payload.policy end
  local at = payload.number * POLICY_BYTES
  return control.policies:sub(at + 1, at + POLICY_BYTES)
end

-- The same as numbers; few scripts need it.
local function policy_of(payload)
  local p = {}
  p.max_attempts, p.initial_backoff_ms, p.max_backoff_ms, p.multiplier_milli, p.jitter_milli =
    struct.unpack(POLICY, packed_policy(payload))
  return p
end

-- The number of a retry policy in control.policies; OWN_POLICY if it is not there.
local function policy_number(policy)
  for number = 0, #control.policies / POLICY_BYTES - 1 do
    local at = number * POLICY_BYTES
    if control.policies:sub(at + 1, at + POLICY_BYTES) == policy then return number end
  end
  return OWN_POLICY
end

-- Gives a retry policy a number, unless the table is full. A number is never given up: a task
-- keeps the policy it was made with.
local function keep_policy(policy)
  if control.format < COMPACT or policy_number(policy) ~= OWN_POLICY
      or #control.policies >= OWN_POLICY * POLICY_BYTES then
    return
  end
  control.policies = control.policies .. policy
  redis.call('HSET', K.control, 'policies', control.policies)
end

local coded, code, code_tail   -- of the last task: in a batch most have the same

-- A payload record in the form of the shard.
-- head: retry policy and length of the headers, packed; content: headers and payload.
local function pack_payload(incarnation, enqueued_ms, due_ms, head, digest, content)
  local wait_ms = due_ms - enqueued_ms
  if control.format < COMPACT or incarnation >= MAX_I6 or due_ms >= MAX_I6 or wait_ms >= MAX_I5 then
    return struct.pack('>BI8I8I8', RECORD, incarnation, enqueued_ms, due_ms)
      .. head:sub(1, POLICY_BYTES) .. digest .. head:sub(POLICY_BYTES + 1) .. content
  end
  if coded ~= head then
    local policy, headers_length = head:sub(1, POLICY_BYTES), head:sub(POLICY_BYTES + 1)
    local number = policy_number(policy)
    coded, code, code_tail = head, COMPACT_RECORD + number, number == OWN_POLICY and policy or ''
    if headers_length ~= NO_HEADERS then
      code, code_tail = code + HAS_HEADERS, code_tail .. headers_length
    end
  end
  return struct.pack('>BI6I6I5', code, incarnation, enqueued_ms, wait_ms)
    .. digest .. code_tail .. content
end

-- states[id]: absent for a task that was never touched since its enqueue.
local STATE_RECORD = '>BBI8I8I4I4I4I8I8BBc0Bc0Bc0Bc0I2c0'

local function pack_state(t)
  local record = struct.pack(STATE_RECORD, RECORD, t.state, t.revision,
    t.incarnation, t.promotion, t.attempt, t.run, t.due_ms, t.updated_ms, t.verdict,
    #t.token, t.token, #t.settled_token, t.settled_token, #t.digest, t.digest,
    #t.request_id, t.request_id, #t.last_error, t.last_error)
  -- Came with 0.3: at the end, where 0.2 does not look, and only where there is something to
  -- count. 0.2 drops it when it writes the record: the task may then be snoozed more often.
  if t.snoozes == 0 then return record end
  return record .. struct.pack('>I4', t.snoozes)
end

local function unpack_state(record)
  if record:byte(1) ~= RECORD then return nil end
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
