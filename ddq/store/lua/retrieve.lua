-- retrieve: READY -> LEASED, in the order of due times, within a number of tasks and bytes.
-- flags: allow-oom
-- argv: request_id        '' for none
-- argv: recall_only       '1': answer a repeat, lease nothing
-- argv: lease_ms          how long each lease runs
-- argv: max_bytes         of payloads and headers
-- argv: envelope_bytes    of a reply's other fields, without ids and errors; see max_envelopes
-- argv: max_envelopes     bytes of all else that a reply carries of its tasks
-- argv: first_may_exceed  '1': one task is leased even if it is larger than these bounds
-- argv: tokens            16 random bytes per task that may be leased, one behind the other
-- returns: {status, ready, {id, payload record, state record, expiry_ms} ...}, policies (records.py)
-- returns:   LEASED       these tasks, perhaps none
-- returns:   REPEATED     the request was answered before: those of its leases that still hold
-- returns: ready          tasks that are ready behind these
local refusal = begin()
if refusal then return refusal end

local request_id, recall_only = ARGV[ARGS + 1], ARGV[ARGS + 2] == '1'
local lease_ms, max_bytes = tonumber(ARGV[ARGS + 3]), tonumber(ARGV[ARGS + 4])
local envelope_bytes, max_envelopes = tonumber(ARGV[ARGS + 5]), tonumber(ARGV[ARGS + 6])
local first_may_exceed = ARGV[ARGS + 7] == '1'
local tokens = ARGV[ARGS + 8]
local TOKEN_BYTES = 16
local results = {}

-- The record is id length, id, token, one behind the other.
local record = recall('retrieve', request_id)
if record then
  local at = 1
  while at + 1 <= #record do
    local length = struct.unpack('>I2', record, at)
    local id = packed_id(record:sub(at + 2, at + 1 + length))
    local token = record:sub(at + 2 + length, at + 17 + length)
    at = at + 18 + length
    -- The id may have another incarnation by now, of any size: its payload is read only if the lease
    -- still holds, and those fitted into one reply.
    local state = get_field(K.states, id)
    if not state and control.moving then state = get_field(K.states, id_text(id)) end
    state = state and unpack_state(state)
    local t = state and state.state == LEASED and state.token == token and load(id)
    if t and t.state == LEASED and t.token == token then
      local expiry_ms = as_ms(get_score(K.leases, id))
      if expiry_ms > now then
        results[#results + 1] = { id, t.record, pack_state(t), expiry_ms }
      end
    end
  end
  return finish({ 'REPEATED', 0, results }, control.policies)
end

local function content_bytes(id)
  local record = get_field(K.payloads, id)
  return record and math.max(0, #record - head_bytes(record)) or 0
end

local function state_bytes(id)
  local record = get_field(K.states, id)
  return record and #record or 0
end

local granted = {}
if control.paused == 0 and not recall_only then
  local first_expiry_ms = first_score(K.leases)
  local expiry_ms = now + lease_ms
  local bytes, envelopes = 0, 0
  local waiting = renamed(K.ready, run('ZRANGE', K.ready, 0, #tokens / TOKEN_BYTES - 1), 1)
  for at, id in ipairs(waiting) do
    -- Looked up before it is leased: a reply that turned out too large would burn an attempt
    -- each time it is tried.
    read_ahead(waiting, at, 1)
    bytes = bytes + content_bytes(id)
    envelopes = envelopes + envelope_bytes + id_bytes(id) + state_bytes(id)
    if (bytes > max_bytes or envelopes > max_envelopes)
        and not (first_may_exceed and #results == 0) then
      break
    end
    local t = examine(id, READY)
    if t then
      t.attempt = t.attempt + 1
      t.token = tokens:sub(TOKEN_BYTES * #results + 1, TOKEN_BYTES * (#results + 1))
      t.settled_token, t.verdict = '', NONE
      transition('lease', t, LEASED, expiry_ms)
      results[#results + 1] = { id, t.record, get_field(K.states, id), expiry_ms }
      granted[#granted + 1] = struct.pack('>I2c0', #id, id) .. t.token
    end
  end
  if #results > 0 then
    remember('retrieve', request_id, nil, table.concat(granted), expiry_ms)
    hint_if_earlier(first_expiry_ms, expiry_ms)
  end
end
local ready = control.paused == 0 and run('ZCARD', K.ready) or 0
return finish({ 'LEASED', ready, results }, control.policies)
