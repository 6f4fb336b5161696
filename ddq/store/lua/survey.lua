-- survey: the counters of a shard and what is next: for statistics, and for a scheduler that
-- visits a shard it does not lead.
-- flags: allow-oom
-- argv: (none of its own)
-- returns: {{counter, value ...}, tombstones, oldest_ready_due_ms, epoch, format of all its keys,
-- returns:   next_due_ms, next_expiry_ms, next_collect_ms}; -1 for none
local refusal = begin()
if refusal then return refusal end

local figures = {}
for _, name in ipairs(COUNTERS) do
  figures[#figures + 1] = name
  figures[#figures + 1] = control['n:' .. name]
end
return finish({
  figures, run('ZCARD', K.finished), first_score(K.ready) or -1, control.epoch,
  control.moving and control.format - 1 or control.format,
  next_wake_up(),
})
