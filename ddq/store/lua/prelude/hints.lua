-- What schedulers and waiting Retrieves learn: hints, leadership, and what is next to be done.

-- Hints: lossy by contract. "due" tells schedulers of an earlier wake-up, "ready" tells
-- waiting Retrieves how many tasks there are.
local function hint(kind, value)
  redis.call('PUBLISH', 'ddq:hints',
    string.format('%s %s %.0f', kind, K.control:match('{.*}'), value))
end

local function hint_if_earlier(before_ms, after_ms)
  if after_ms and (not before_ms or after_ms < before_ms) then hint('due', after_ms) end
end

local function earlier(a_ms, b_ms)
  return (not a_ms or b_ms < a_ms) and b_ms or a_ms
end

-- Leadership is checked where it matters: in the script that moves tasks.
local function is_leader(nonce, epoch)
  return control.nonce == nonce and control.epoch == epoch
end

-- What a scheduler needs to know to sleep: ms of the next due time, lease expiry and
-- collection; -1 for none.
local function next_wake_up()
  local due = control.paused == 0 and first_score(K.tasks) or -1
  local expiry = first_score(K.leases) or -1
  local collect = -1
  local finished, request = first_score(K.finished), first_score(K.request_expiry)
  if finished then collect = finished + control.retention_ms end
  if request and (collect < 0 or request < collect) then collect = request end
  return due, expiry, collect
end
