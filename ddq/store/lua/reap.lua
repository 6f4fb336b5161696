-- reap: ends attempts whose lease has expired: SCHEDULED again with backoff, or DEAD. The
-- token still settles the task until another worker gets it, so work that finished during an
-- outage is not wasted.
-- flags: allow-oom
-- argv: nonce             the leader's
-- argv: epoch
-- argv: lease_ms          the leadership is prolonged by this
-- argv: random            per entry to look at, a number in [0, 1) for the jitter
-- returns: {status, moved, next_due_ms, next_expiry_ms, next_collect_ms}
-- returns:   OK           a next_expiry_ms that has passed: call again
-- returns:   NOT_LEADER   deposed: nothing moved
local refusal = begin()
if refusal then return refusal end

-- What the journal says is the epoch that moved a task, not the one that should have.
acting_nonce, acting_epoch = ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])
if not is_leader(ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])) then
  return finish({ 'NOT_LEADER', 0, -1, -1, -1 })
end
redis.call('HSET', K.control, 'leader_until_ms', now + tonumber(ARGV[ARGS + 3]))

local randoms = ARGS + 3
local moved = 0
local expired = renamed(K.leases, run('ZRANGEBYSCORE', K.leases, '-inf', string.format('%.0f', now),
  'LIMIT', 0, #ARGV - randoms), 1)
for i, id in ipairs(expired) do
  if has_read_enough(id) then break end
  read_ahead(expired, i, 1)
  local t = examine(id, LEASED)
  if t then
    t.last_error = 'the lease of attempt ' .. t.attempt .. ' expired'
    end_attempt('expire', t, -1, false, tonumber(ARGV[randoms + i]))
    moved = moved + 1
  end
end
return finish({ 'OK', moved, next_wake_up() })
