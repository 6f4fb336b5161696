-- get: reads tasks by id. It moves nothing but the shard's sequence.
-- flags: allow-oom
-- argv: full              '1': with payloads
-- argv: id                per task
-- returns: per task {status, payload record, state record, expiry_ms, payload record bytes}; fewer than tasks: send the rest again;
-- returns:   and behind them: policies (records.py)
-- returns:   OK           the payload record is cut behind the headers unless full was asked
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local full = ARGV[ARGS + 1] == '1'
return finish(each_item(ARGS + 2, 1, function(t)
  if not t then return unreadable(t, '', '', 0, 0) end
  -- A finished task has none, whatever was put there by hand.
  local record = t.payload and not t.cut_from and t.record or ''
  if record ~= '' and not full then
    record = record:sub(1, t.payload.head_bytes + t.payload.headers_bytes)
  end
  local expiry_ms = t.state == LEASED and as_ms(get_score(K.leases, t.id)) or 0
  return { 'OK', record, pack_state(t), expiry_ms, #t.record }
end), control.policies)
