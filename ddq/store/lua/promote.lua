-- promote: SCHEDULED -> READY for what is due, by the scheduler that leads.
-- flags: allow-oom
-- argv: nonce             it leads by
-- argv: epoch
-- argv: lease_ms          the leadership is prolonged by this
-- argv: limit             entries to look at
-- returns: {status, moved, late_ms, next_due_ms, next_expiry_ms, next_collect_ms}; late_ms: how
-- returns:   long the first of them had been due, -1 when none moved
-- returns:   OK           moved tasks are ready; a next_due_ms that has passed: call again
-- returns:   NOT_LEADER   deposed: nothing moved
local refusal = begin()
if refusal then return refusal end

-- What the journal says is the epoch that moved a task, not the one that should have.
acting_nonce, acting_epoch = ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])
if not is_leader(ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])) then
  return finish({ 'NOT_LEADER', 0, -1, -1, -1, -1 })
end
redis.call('HSET', K.control, 'leader_until_ms', now + tonumber(ARGV[ARGS + 3]))

local moved, late_ms = 0, -1
if control.paused == 0 then
  local due = renamed(K.tasks, run('ZRANGEBYSCORE', K.tasks, '-inf', string.format('%.0f', now),
    'LIMIT', 0, tonumber(ARGV[ARGS + 4])), 1)
  for at, id in ipairs(due) do
    if has_read_enough(id) then break end
    read_ahead(due, at, 1)
    local t = examine(id, SCHEDULED)
    if t then
      if moved == 0 then late_ms = math.max(0, now - t.due_ms) end
      t.promotion = t.promotion + 1
      transition('promote', t, READY, t.due_ms)
      moved = moved + 1
    end
  end
end
if moved > 0 then hint('ready', moved) end
return finish({ 'OK', moved, late_ms, next_wake_up() })
