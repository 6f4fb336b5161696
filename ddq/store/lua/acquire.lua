-- acquire: takes or keeps the leadership of a shard. A fresh nonce each time it is taken: an
-- epoch alone can roll back at a failover and be given twice. A challenger of higher rank takes
-- it from a leader that is alive, so that leadership spreads; promote and reap are fenced anyway.
-- flags: allow-oom
-- argv: nonce             fresh random bytes, of this attempt to take it
-- argv: held_nonce        that the caller leads by; '' if it does not
-- argv: held_epoch        likewise; '0'
-- argv: lease_ms          how long others of no higher rank keep their hands off
-- argv: rank              of the caller on this shard: a whole number below 2^32
-- argv: challenge         '1': take it also from a living leader, if that has a lower rank
-- returns: {status, epoch, remaining_ms, next_due_ms, next_expiry_ms, next_collect_ms}
-- returns:   ACQUIRED     the caller leads, by its nonce and this epoch
-- returns:   KEPT         it led already
-- returns:   TAKEN        another leads for remaining_ms
local refusal = begin()
if refusal then return refusal end

local nonce, held_nonce, held_epoch = ARGV[ARGS + 1], ARGV[ARGS + 2], tonumber(ARGV[ARGS + 3])
local lease_ms, rank = tonumber(ARGV[ARGS + 4]), tonumber(ARGV[ARGS + 5])

-- A value that was written by hand counts as no rank.
local function outranks()
  return rank > (tonumber(redis.call('HGET', K.control, 'leader_rank') or 0) or 0)
end

local status = 'TAKEN'
if held_nonce ~= '' and is_leader(held_nonce, held_epoch) then
  status = 'KEPT'
elseif not control.nonce or control.leader_until_ms <= now
    or (ARGV[ARGS + 6] == '1' and outranks()) then
  status = 'ACQUIRED'
  control.epoch = control.epoch + 1
  redis.call('HSET', K.control, 'nonce', nonce, 'epoch', control.epoch, 'leader_rank', rank)
end
if status ~= 'TAKEN' then
  control.leader_until_ms = now + lease_ms
  redis.call('HSET', K.control, 'leader_until_ms', control.leader_until_ms)
end
return finish({ status, control.epoch, control.leader_until_ms - now, next_wake_up() })
