-- The records of tasks and requests. ddq/store/records.py packs and unpacks the same bytes.

local RECORD = 1         -- the first byte of a state record, and of a wide payload record

-- payloads[id], written once. Wide: RECORD, incarnation, enqueued ms, first due ms, retry policy, digest,
-- length of the headers; then headers and payload.
-- Compact: first byte, the low 40 bits of enqueued ms and of the incarnation, the next 4 bits of both, ms from
-- the enqueue to the first due time, digest; then the retry policy and the length of the headers where the
-- first byte says so; then headers and payload.
-- First byte: 128, and 64 if there are headers, and the number of the policy in control.policies, or 63 if
-- the record has it itself.
-- These are numbers below and not names: each name that a function uses is looked up whenever a script that
-- has the function begins.
local OWN_POLICY, POLICY_BYTES = 63, 28
local NO_HEADERS = '\0\0\0\0'

-- Bytes of a payload record before headers and payload; of a damaged one it does not matter.
local function head_bytes(record)
  local first = record:byte(1)
  if not first or first < 128 then return 73 end
  return 33 + (first % 64 == 63 and 28 or 0) + (first >= 192 and 4 or 0)
end

local function unpack_payload(record)
  local first = record and record:byte(1)
  if not first or first > 1 and first < 128 or first == 0 then return nil end
  local head = head_bytes(record)
  if #record < head then return nil end
  if first == 1 then
    local _, incarnation, enqueued_ms, due_ms, policy, digest, headers_bytes =
      struct.unpack('>BI8I8I8c28c16I4', record)
    if #record < head + headers_bytes or incarnation > MAX_MS then return nil end
    return {
      incarnation = incarnation, enqueued_ms = enqueued_ms, due_ms = due_ms, policy = policy,
      digest = digest, head_bytes = head, headers_bytes = headers_bytes,
    }
  end
  local _, enqueued_ms, incarnation, high, wait_ms, digest = struct.unpack('>BI5I5BI5c16', record)
  if high > 0 then
    enqueued_ms = enqueued_ms + math.floor(high / 16) * 2 ^ 40
    incarnation = incarnation + high % 16 * 2 ^ 40
  end
  local number, policy, headers_bytes = first % 64, nil, 0
  if number == 63 then
    policy = record:sub(34, 61)
  elseif #control.policies < (number + 1) * 28 then
    return nil
  end
  if first >= 192 then
    headers_bytes = struct.unpack('>I4', record, head - 3)
    if #record < head + headers_bytes then return nil end
  end
  return {
    incarnation = incarnation, enqueued_ms = enqueued_ms, due_ms = enqueued_ms + wait_ms,
    policy = policy, number = number, digest = digest, head_bytes = head, headers_bytes = headers_bytes,
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
    struct.unpack('>I4I8I8I4I4', packed_policy(payload))
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
  if control.format < COMPACT or incarnation >= 2 ^ 44 or enqueued_ms >= 2 ^ 44
      or wait_ms >= 2 ^ 40 then
    return struct.pack('>BI8I8I8', RECORD, incarnation, enqueued_ms, due_ms)
      .. head:sub(1, POLICY_BYTES) .. digest .. head:sub(POLICY_BYTES + 1) .. content
  end
  if coded ~= head then
    local policy, headers_length = head:sub(1, POLICY_BYTES), head:sub(POLICY_BYTES + 1)
    local number = policy_number(policy)
    coded, code, code_tail = head, 128 + number, number == OWN_POLICY and policy or ''
    if headers_length ~= NO_HEADERS then
      code, code_tail = code + 64, code_tail .. headers_length
    end
  end
  local high = math.floor(enqueued_ms / 2 ^ 40) * 16 + math.floor(incarnation / 2 ^ 40)
  return struct.pack('>BI5I5BI5', code, enqueued_ms % 2 ^ 40, incarnation % 2 ^ 40, high, wait_ms)
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
  if control.moving then
    local bytes, largest = old_names().rename_records(ids)
    loaded_bytes, largest_bytes = loaded_bytes + bytes, math.max(largest_bytes, largest)
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
  local field = request_field(kind, request_id, id)
  local record = get_field(K.requests, field)
  if record then return record end
  if control.moving and id then
    local old = request_field(kind, request_id, id_text(id))
    old_names().rename_field(K.requests, old, field)
    old_names().rename_member(K.request_expiry, old, field)
    return get_field(K.requests, field) or nil
  end
  return nil
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
