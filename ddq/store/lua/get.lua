-- get: reads tasks by id. It moves nothing but the shard's sequence.
-- flags: allow-oom
-- argv: full              '1': with payloads
-- argv: id                per task
-- returns: per task {status, payload record, state record, expiry_ms, payload record bytes}; fewer than tasks: send the rest again
-- returns:   OK           the payload record is cut behind the headers unless full was asked
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local full = ARGV[ARGS + 1] == '1'
local results = {}
for at = ARGS + 2, #ARGV do
  if has_read_enough() then break end
  local t = load(ARGV[at])
  if t == nil then
    results[#results + 1] = { 'NOT_FOUND', '', '', 0, 0 }
  elseif t == false then
    results[#results + 1] = { 'MALFORMED', '', '', 0, 0 }
  else
    -- A finished task has none, whatever somebody put there by hand.
    local record = t.payload and not t.cut_from and t.record or ''
    if record ~= '' and not full then
      record = record:sub(1, PAYLOAD_HEAD_BYTES + t.payload.headers_bytes)
    end
    local expiry_ms = t.state == LEASED and as_ms(redis.call('ZSCORE', K.leases, t.id)) or 0
    results[#results + 1] = { 'OK', record, pack_state(t), expiry_ms, #t.record }
  end
end
return finish(results)
