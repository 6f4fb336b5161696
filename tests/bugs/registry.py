"""The seeded mutations: what other queues got wrong, and what this one could.

Each is a small edit of a script, a patch of a function, or a setting. `breaks` are the promises
by which it may be caught: a crash, or an assertion made for it, does not count.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from importlib.resources import files
from typing import Any
from unittest import mock

from ddq.scheduler import Scheduler
from ddq.server.notifier import ReadyNotifier
from ddq.store.barrier import NO_ELECTIONS, Answer, Chain, ElectionAnswer, Timing
from ddq.store.job_values import Removed
from ddq.store.jobstore import JobStore
from ddq.store.keys import ShardId
from ddq.store.runner import Call, ScriptRunner
from ddq.task import Outcome, TaskState
from tests.stateful.delivery import late_deliveries
from tests.stateful.directed import (
    Ask,
    cancel,
    enqueued_during_an_election,
    read,
)
from tests.stateful.history import Exchange
from tests.stateful.simulation import TIMING

DIRECTED_SEEDS_COUNT = 10
ANY = frozenset(f"G{number}" for number in range(1, 15))


class Search(Enum):
    """How a mutation is looked for: its level of docs/VERIFICATION.md, in words."""

    STEPS = "2"
    ONE_NODE = "3"
    FAILOVERS = "3 with failovers"
    LOST_TAIL = "3 with a lost tail"
    DIRECTED = "3, directed"

    @property
    def level(self) -> int:
        """The level's number."""
        return int(self.value[0])


@dataclass(frozen=True)
class Bug:
    """One mistake.

    Attributes:
        edits: (script, text, other text); the text must be there exactly once.
        patch: a context manager that changes code while it lasts.
        durability: of a simulation with failovers.
        searches: by what it is looked for, in this order.
        ask: what is asked of a deposed master there.
        directed: another directed simulation; returns what it found, or nothing.
    """

    name: str
    breaks: frozenset[str]
    source: str
    edits: tuple[tuple[str, str, str], ...] = ()
    patch: Callable[[], Any] | None = None
    durability: str = "all"
    searches: tuple[Search, ...] = (Search.STEPS, Search.ONE_NODE)
    ask: Ask | None = None
    directed: Callable[[str], str] | None = None


def texts_of(bug: Bug) -> dict[str, str]:
    """The changed scripts of a bug.

    Raises:
        ValueError: a text is not there exactly once, so the bug no longer fits the code.
    """
    changed: dict[str, str] = {}
    for script, text, other in bug.edits:
        if script not in changed:
            path = files("ddq.store") / "lua" / f"{script}.lua"
            changed[script] = path.read_text(encoding="utf-8")
        if changed[script].count(text) != 1:
            raise ValueError(f"bug {bug.name!r}: {text!r} is not once in {script}.lua; adapt it")
        changed[script] = changed[script].replace(text, other)
    return changed


def _set(*promises: str) -> frozenset[str]:
    return frozenset(promises)


# Patches of functions ----------------------------------------------------------------------


@contextmanager
def _timed(timing: Timing) -> Iterator[None]:
    with mock.patch("tests.stateful.simulation.TIMING", timing):
        yield


@contextmanager
def _not_settling() -> Iterator[None]:
    """A majority counts at once: also on a master that came back a moment ago.

    The Sentinels are not asked either: beside their answer the settling time is a second line of
    defence (ADR 018).
    """
    with _timed(replace(TIMING, settle_s=0.0)), _elections_not_asked_for():
        yield


@contextmanager
def _elections_not_asked_for() -> Iterator[None]:
    """The chain settles whatever the Sentinels have voted."""
    hear = Chain.hear

    def deaf(chain: Chain, asked_s: float, _answer: ElectionAnswer) -> None:
        hear(chain, asked_s, NO_ELECTIONS)

    with mock.patch.object(Chain, "hear", deaf):
        yield


def _lost_at(simulation: Callable[[str], tuple[Exchange, bool]]) -> Callable[[str], str]:
    """Finds an acknowledged enqueue in a simulation, whose task the new master lacks."""

    def find(socket: str) -> str:
        event, held = simulation(socket)
        return "an enqueue was acknowledged, and its task is gone" if event.ok and not held else ""

    return find


def _first_of_many(simulation: Callable[[str, int], tuple[list[str], int]]) -> Any:
    """Runs a simulation with several seeds, up to the first that finds something."""

    def find(socket: str) -> str:
        found = (simulation(socket, seed)[0] for seed in range(DIRECTED_SEEDS_COUNT))
        return next((summaries[0] for summaries in found if summaries), "")

    return find


def _without_barrier(*scripts: str) -> Callable[[], AbstractContextManager[None]]:
    """The replies of some scripts wait for nothing."""

    @contextmanager
    def patched() -> Iterator[None]:
        true_run = ScriptRunner.run

        async def run(
            self: ScriptRunner, topic: Any, shard: Any, name: str, args: Any, call: Call
        ) -> Any:
            if name in scripts:
                call = replace(call, durable=False)
            return await true_run(self, topic, shard, name, args, call)

        with mock.patch.object(ScriptRunner, "run", run):
            yield

    return patched


@contextmanager
def _no_ledger() -> Iterator[None]:
    """No process reports to the store what was acknowledged to it."""
    with mock.patch.object(ScriptRunner, "_ledger", return_value=None):
        yield


@contextmanager
def _refusals_do_not_wait() -> Iterator[None]:
    """What changed nothing, so it seems, need not wait: "not found", "too late"."""
    true_run = ScriptRunner.run

    async def run(
        self: ScriptRunner, topic: Any, shard: Any, name: str, args: Any, call: Call
    ) -> Any:
        if name == "remove" and call.durable:
            looked = await self.run(topic, shard, "get", [0, args[1]], replace(call, durable=False))
            if looked.body[0][0][0] == b"NOT_FOUND":
                call = replace(call, durable=False)
        return await true_run(self, topic, shard, name, args, call)

    with mock.patch.object(ScriptRunner, "run", run):
        yield


@contextmanager
def _one_replica_is_enough() -> Iterator[None]:
    """Any replica will do, whichever is promoted."""

    def judge(_: Chain, answer: Answer) -> bool:
        return answer.acked_count >= 1

    with mock.patch.object(Chain, "judge", judge):
        yield


@contextmanager
def _cancel_in_two_steps() -> Iterator[None]:
    """SharedRefresh first and removes afterwards, and reports what it saw."""
    true_remove = JobStore.remove

    async def remove(self: JobStore, topic: str, removals: Any, call: Call) -> Any:
        seen = [await self.get(topic, item.id, full=False, call=call) for item in removals]
        outcomes = await true_remove(self, topic, removals, call)
        for at, (before, outcome) in enumerate(zip(seen, outcomes, strict=True)):
            task = before.value
            waiting = task is not None and task.state in {TaskState.SCHEDULED, TaskState.READY}
            if task is not None and waiting and outcome.error is not None:
                done = Removed(already=False, revision=task.revision, incarnation=task.incarnation)
                outcomes[at] = Outcome(value=done, receipt=before.receipt)
        return outcomes

    with mock.patch.object(JobStore, "remove", remove):
        yield


@contextmanager
def _no_sweep() -> Iterator[None]:
    """Liveness rests on hints alone."""
    with (
        mock.patch.object(Scheduler, "_sweep_s", property(lambda self: 1e9)),
        mock.patch.object(Scheduler, "_topics_interval_s", property(lambda self: 1e9)),
    ):
        yield


@contextmanager
def _due_hints_ignored() -> Iterator[None]:
    """The scheduler sleeps through earlier tasks, and never sweeps."""
    with _no_sweep(), mock.patch.object(Scheduler, "on_hint", return_value=None):
        yield


@contextmanager
def _wake_ups_dropped() -> Iterator[None]:
    """Every third one reaches no Retrieve."""
    notify, numbers = ReadyNotifier.notify, itertools.count(1)

    def some(notifier: ReadyNotifier, shard: ShardId, count: int) -> None:
        if next(numbers) % 3:
            notify(notifier, shard, count)

    with mock.patch.object(ReadyNotifier, "notify", some):
        yield


BUGS: tuple[Bug, ...] = (
    Bug(
        "scheduler is not fenced",
        _set("G3", "G8", "G10", "G12"),
        "any queue whose leader lock is checked before the script",
        (
            (
                "prelude/hints",
                "return control.nonce == nonce and control.epoch == epoch",
                "return true",
            ),
        ),
    ),
    Bug(
        "owner's nonce is not checked",
        _set("G3", "G8", "G12"),
        "an epoch can roll back at a failover and be given twice",
        (
            (
                "prelude/hints",
                "return control.nonce == nonce and control.epoch == epoch",
                "return control.epoch == epoch",
            ),
        ),
    ),
    Bug(
        "epoch is not checked",
        _set("G3", "G8", "G12"),
        "a lock by name only",
        (
            (
                "prelude/hints",
                "return control.nonce == nonce and control.epoch == epoch",
                "return control.nonce ~= false",
            ),
        ),
    ),
    Bug(
        "leadership is taken from a living leader",
        _set("G12"),
        "SETNX without looking at the expiry",
        (("acquire", "not control.nonce or control.leader_until_ms <= now", "true"),),
    ),
    Bug(
        "leadership goes to any challenger",
        _set("G12"),
        "two schedulers that take it from each other in turn",
        (("acquire", "return rank > (", "return rank >= ("),),
        searches=(Search.STEPS,),
    ),
    Bug(
        "ack needs no token",
        _set("G8", "G9"),
        "lmstfy: delete is also the ack, unfenced",
        (("ack", "#token > 0 and t.token == token and t.state <= LEASED", "t.state <= LEASED"),),
    ),
    Bug(
        "only the first token of a batch is checked",
        _set("G8", "G9"),
        "a check of the batch in the place of one of each item",
        (
            (
                "ack",
                "#token > 0 and t.token == token and t.state <= LEASED",
                "(at > ARGS + 1 or #token > 0 and t.token == token) and t.state <= LEASED",
            ),
        ),
    ),
    Bug(
        "result of an item given to its neighbour",
        ANY,
        "results collected in the order in which they become known",
        (
            (
                "prelude/walks",
                "results[#results + 1] = answer(load(ARGV[at]), at)",
                "table.insert(results, math.max(1, #results), answer(load(ARGV[at]), at))",
            ),
        ),
    ),
    Bug(
        "an item does not see what an earlier one of its batch changed",
        ANY,
        "all items are read and checked before the first is written",
        (
            (
                "prelude/records",
                "get_field(K.states, id)\n",
                "redis.call('HGET', K.states, id)\n",
            ),
        ),
    ),
    Bug(
        "a change that follows another of the same script is lost",
        ANY,
        "a buffer that keeps the first write of a key",
        (
            (
                "prelude/changes",
                "    scores[key][member] = score\n",
                "    if scores[key][member] == nil then scores[key][member] = score end\n",
            ),
        ),
    ),
    Bug(
        "a task is not found by its old name while its shard is upgraded",
        ANY,
        "a format that is changed at once, and its keys one after the other",
        (
            (
                "prelude/records",
                "  if control.moving then\n    local bytes",
                "  if false then\n    local bytes",
            ),
        ),
    ),
    Bug(
        "an upgrade renames the records of a task and not its place in an index",
        ANY,
        "hash fields and index entries renamed by separate walks",
        (("prelude/ids", "          rename_member(key, text, names[i])\n", ""),),
    ),
    Bug(
        "an upgrade is done before it has looked at every entry",
        ANY,
        "one step for each index",
        (("upgrade", "  if limit > 0 then place", "  if true then place"),),
    ),
    Bug(
        "a task takes the retry policy of its topic for its own",
        ANY,
        "a number where there was a policy",
        (("prelude/records", "+ POLICY_BYTES) == policy then", "+ POLICY_BYTES) then"),),
    ),
    Bug(
        "late nack ends an attempt that has ended",
        _set("G8", "G10"),
        "the first distributed-delay-queue: a late nack brings a task back",
        (
            (
                "nack",
                "elseif t.state == LEASED and t.token == token then",
                "elseif #token > 0 and t.state <= LEASED and t.token == token then",
            ),
        ),
    ),
    Bug(
        "nack needs no token",
        _set("G8"),
        "asynq: a stale worker's retry evicts the present holder",
        (("nack", "t.state == LEASED and t.token == token", "t.state == LEASED"),),
    ),
    Bug(
        "extend needs no token",
        _set("G8", "G7"),
        "heartbeats by task id",
        (("extend", "t.state == LEASED and t.token == token", "t.state == LEASED"),),
    ),
    Bug(
        "release needs no token",
        _set("G8", "G7"),
        "requeue by task id",
        (("release", "t.state == LEASED and t.token == token", "t.state == LEASED"),),
    ),
    Bug(
        "cancel of a leased task reported as done",
        _set("G4"),
        "queues that delete the payload under the worker",
        (
            (
                "remove",
                "return { 'LEASED', t.revision, t.incarnation }",
                "return { 'CANCELLED', t.revision, t.incarnation }",
            ),
        ),
    ),
    Bug(
        "cancel looks first and removes afterwards",
        _set("G4", "G7", "G9"),
        "resque-scheduler: check, then delete (#46)",
        patch=_cancel_in_two_steps,
        searches=(Search.ONE_NODE,),
    ),
    Bug(
        "repeated cancel reaches the next incarnation",
        _set("G4", "G13"),
        "ids that are used again",
        (("remove", "if done then", "if false then"),),
    ),
    Bug(
        "cancel leaves the token alive",
        _set("G8", "G4", "G9"),
        "revocation that only changes the state",
        (
            (
                "remove",
                "t.token, t.settled_token, t.verdict = '', '', NONE",
                "t.settled_token, t.verdict = '', NONE",
            ),
        ),
    ),
    Bug(
        "promotion is not numbered",
        _set("G3"),
        "nothing to tell two promotions apart",
        (("promote", "t.promotion = t.promotion + 1", "t.promotion = t.promotion"),),
    ),
    Bug(
        "promotion forgets to leave the schedule",
        _set("G3", "G11"),
        "dramatiq: promotion in two steps duplicates (#431)",
        (
            (
                "prelude/transitions",
                "if INDEX[from] ~= INDEX[to] then set_score(INDEX[from], t.id, false) end",
                (
                    "if INDEX[from] ~= INDEX[to] and to ~= READY then "
                    "set_score(INDEX[from], t.id, false) end"
                ),
            ),
        ),
    ),
    Bug(
        "due times rounded down to the second",
        _set("G5"),
        "lmstfy, asynq (#1071): tasks up to a second early",
        (
            (
                "enqueue",
                "local due_ms = schedule == 'delay' and now + value_ms or math.max(value_ms, now)",
                (
                    "local due_ms = math.floor((schedule == 'delay' and now + value_ms "
                    "or math.max(value_ms, now)) / 1000) * 1000"
                ),
            ),
        ),
    ),
    Bug(
        "the caller's clock decides",
        _set("G5"),
        "queues whose clients compute the score",
        (("prelude/control", "local clock = now_ms()", "local clock = CALL.clock_ms"),),
    ),
    Bug(
        "time runs backwards",
        _set("G5", "G10"),
        "no high-water mark: a failover to a slower clock",
        (("prelude/control", "now = math.max(clock, control.mark_ms)", "now = clock"),),
    ),
    Bug(
        "a clock that is far off is trusted",
        _set("G5"),
        "one look at a clock an hour ahead",
        (
            (
                "prelude/control",
                "if math.abs(clock - CALL.clock_ms) > CALL.max_skew_ms then",
                "if false then",
            ),
        ),
    ),
    Bug(
        "reaper forgets the attempt",
        _set("G10"),
        "Celery: redelivered again and again (#2481)",
        (
            (
                "reap",
                "    end_attempt('expire'",
                "    t.attempt = math.max(0, t.attempt - 1)\n    end_attempt('expire'",
            ),
        ),
    ),
    Bug(
        "one attempt too many",
        _set("G10"),
        "off by one",
        (
            (
                "prelude/transitions",
                "if dead or t.attempt >= policy.max_attempts then",
                "if dead or t.attempt > policy.max_attempts then",
            ),
        ),
    ),
    Bug(
        "unlimited attempts are taken for none",
        _set("G2", "G8", "G10"),
        "a signed number: -1 is less than any attempt",
        (
            (
                "nack",
                "or t.attempt >= policy_of(t.payload).max_attempts",
                (
                    "or t.attempt >= policy_of(t.payload).max_attempts "
                    "or policy_of(t.payload).max_attempts == 4294967295"
                ),
            ),
        ),
        searches=(Search.STEPS,),
    ),
    Bug(
        "backoff does not grow",
        _set("G5", "G10"),
        "off by one in the exponent",
        (("prelude/transitions", "(policy.multiplier_milli / 1000) ^ (attempt - 1)", "1"),),
    ),
    Bug(
        "release burns an attempt",
        _set("G10"),
        "requeue that counts",
        (("release", "t.attempt = t.attempt - 1", "t.attempt = t.attempt"),),
    ),
    Bug(
        "snooze needs no token",
        _set("G8", "G7"),
        "postponing by task id",
        (("snooze", "t.state == LEASED and t.token == token", "t.state == LEASED"),),
    ),
    Bug(
        "snooze burns an attempt",
        _set("G10"),
        "a snooze that is a failure with a delay",
        (("snooze", "t.attempt = t.attempt - 1", "t.attempt = t.attempt"),),
    ),
    Bug(
        "snooze gives an attempt back twice",
        _set("G10"),
        "River raises max_attempts by one and lowers the attempt as well",
        (("snooze", "t.attempt = t.attempt - 1", "t.attempt = t.attempt - 2"),),
        searches=(Search.STEPS,),
    ),
    Bug(
        "repeated snooze puts off again",
        _set("G8", "G13", "G5"),
        "a lost reply doubles the delay",
        (
            (
                "snooze",
                "elseif t.state == LEASED and t.token == token then",
                (
                    "elseif (t.state == LEASED and t.token == token)\n"
                    "      or (t.state <= READY and t.settled_token == token "
                    "and t.verdict == SNOOZED) then"
                ),
            ),
        ),
    ),
    Bug(
        "snoozes are not counted",
        _set("G10"),
        "a task that is put off for ever",
        (("snooze", "t.snoozes = t.snoozes + 1", "t.snoozes = t.snoozes"),),
        searches=(Search.STEPS,),
    ),
    Bug(
        "repeated run_again makes a second run",
        _set("G13", "G8", "G3", "G9"),
        "an ack that enqueues, and a reply that is lost",
        (
            ("run_again", "  if done then", "  if false then"),
            (
                "run_again",
                "elseif #token > 0 and t.token == token and t.state <= LEASED then",
                (
                    "elseif #token > 0 and (t.token == token or done and t.state <= READY)\n"
                    "      and t.state <= LEASED then"
                ),
            ),
        ),
    ),
    Bug(
        "run_again forgets its token",
        _set("G13", "G8"),
        "a repeat that comes when the next run is leased gets the reply that the lease was lost",
        (
            (
                "run_again",
                "    remember('next',",
                "    local _ = ('next'):len() -- remember('next',",
            ),
        ),
        searches=(Search.STEPS,),
    ),
    Bug(
        "run_again needs no token",
        _set("G8", "G9", "G13"),
        "a schedule by task id",
        (
            (
                "run_again",
                "#token > 0 and t.token == token and t.state <= LEASED",
                "t.state <= LEASED",
            ),
        ),
    ),
    Bug(
        "counter not moved",
        _set("G11"),
        "statistics kept beside the transition",
        (
            (
                "prelude/transitions",
                "  count(NAME[to], 1)\n",
                "  if to ~= LEASED then count(NAME[to], 1) end\n",
            ),
        ),
    ),
    Bug(
        "bytes are not given back",
        _set("G2", "G11"),
        "a bound in bytes that a topic never gets below again",
        (
            (
                "prelude/transitions",
                " and not HELD[to] then count('bytes', -counted_bytes(t)) end",
                " and false then end",
            ),
        ),
    ),
    Bug(
        "the end of an uncounted task frees bytes",
        _set("G11"),
        "tasks from before the bound make room for more than it allows",
        (("prelude/transitions", " or t.incarnation <= control.bytes_from", ""),),
    ),
    Bug(
        "payload outlives its task",
        _set("G2", "G11"),
        "orphans that fill the store",
        (("prelude/transitions", "    set_field(K.payloads, t.id, false)\n", ""),),
    ),
    Bug(
        "repeated retrieve leases again",
        _set("G13", "G7"),
        "a lost reply costs an attempt",
        (("retrieve", "\nif record then", "\nif false then"),),
    ),
    Bug(
        "repeated replacement replaces again",
        _set("G13", "G2"),
        "a repeat that undoes what another client did",
        (("enqueue", "  if done then", "  if false then"),),
    ),
    Bug(
        "debounce beyond its limit",
        _set("G6"),
        "each event pushes the task back, and it never runs",
        (("enqueue", "math.max(now, math.min(due_ms, since_ms + limit_ms))", "due_ms"),),
        searches=(Search.STEPS,),
    ),
    Bug(
        "each debounce counts its limit from itself",
        _set("G6"),
        "the same, a little slower",
        (("enqueue", "return math.min(t.payload.enqueued_ms, now)", "return now"),),
        searches=(Search.STEPS,),
    ),
    Bug(
        "debounce takes a task from its worker",
        _set("G2", "G7", "G8", "G13"),
        "the id runs twice at once",
        (
            (
                "enqueue",
                "      or mode == 'debounce' and t.state == LEASED then",
                "      or mode == 'debounce' and false then",
            ),
            (
                "enqueue",
                "  elseif t.state <= READY then",
                "  elseif t.state <= LEASED then",
            ),
        ),
        searches=(Search.STEPS,),
    ),
    Bug(
        "repeated reschedule moves again",
        _set("G13", "G5", "G3"),
        "the same",
        (("reschedule", "\nif done then", "\nif false then"),),
    ),
    Bug(
        "repeated redrive revives what died since",
        _set("G13", "G10", "G2"),
        "redrive all without a cut",
        (
            (
                "redrive",
                "elseif t.state ~= DEAD or t.revision > walk.cut then",
                "elseif t.state ~= DEAD then",
            ),
            ("redrive", "if t and t.revision > walk.cut then", "if false then"),
        ),
    ),
    Bug(
        "a request that comes too late still acts",
        _set("G2", "G13"),
        "a request stuck in a socket acts on a later life",
        (
            (
                "prelude/control",
                "if CALL.not_after_ms > 0 and now > CALL.not_after_ms then",
                "if false then",
            ),
        ),
    ),
    Bug(
        "purge takes what came after it began",
        _set("G2", "G3", "G13"),
        "purge by deleting keys",
        (
            (
                "prelude/records",
                "return HELD[t.state] and t.incarnation <= control.purge_cut",
                "return HELD[t.state] and control.purge_cut > 0",
            ),
        ),
    ),
    Bug(
        "a task hops past the purge",
        _set("G2", "G13", "G3", "G7"),
        "purge that walks the indexes while tasks move",
        (
            (
                "prelude/records",
                "return HELD[t.state] and t.incarnation <= control.purge_cut",
                "return false",
            ),
        ),
    ),
    Bug(
        "finished ids are forgotten at once",
        _set("G13", "G2"),
        "no tombstones: a late repeat enqueues again",
        (
            (
                "collect",
                "local old = string.format('%.0f', now - control.retention_ms)",
                "local old = string.format('%.0f', now)",
            ),
        ),
    ),
    Bug(
        "the same content is a conflict of its own",
        _set("G2", "G13"),
        "dedup by id alone",
        (
            (
                "enqueue",
                "local same = digest == (t.payload and t.payload.digest or t.digest)",
                "local same = true",
            ),
        ),
    ),
    Bug(
        "lateness rests on hints",
        _set("G6"),
        "BullMQ: workers stop silently after a failover (#3088); dramatiq stalls (#527)",
        patch=_due_hints_ignored,
        searches=(Search.ONE_NODE,),
    ),
    Bug(
        "a wake-up is dropped",
        _set("G14"),
        "a Retrieve that was woken for a task found it taken, and slept through the next one",
        patch=_wake_ups_dropped,
        searches=(Search.DIRECTED,),
        directed=_first_of_many(late_deliveries),
    ),
    Bug(
        "WAIT left out",
        _set("G2", "G3", "G4", "G9", "G13", "G7"),
        "every Redis queue that we know",
        durability="fast",
        searches=(Search.FAILOVERS,),
    ),
    Bug(
        "WAIT with too few replicas",
        _set("G2", "G3", "G4", "G9", "G13", "G7"),
        "a majority under WAIT alone",
        patch=_one_replica_is_enough,
        searches=(Search.FAILOVERS,),
    ),
    Bug(
        "dedup path does not write",
        _set("G2", "G3", "G4", "G9", "G13", "G7"),
        "WAIT after a script that wrote nothing answers at once",
        (
            (
                "prelude/control",
                "  redis.call('HSET', K.control, unpack(fields))\n  local reply",
                (
                    "  if next(counts) or control.lineage == CALL.lineage then\n"
                    "    redis.call('HSET', K.control, unpack(fields))\n"
                    "  else process_count = process_count - 1 end\n  local reply"
                ),
            ),
        ),
        searches=(Search.FAILOVERS,),
    ),
    Bug(
        "settling time left out",
        _set("G2", "G3", "G4", "G7", "G9", "G13"),
        "a master that was paused acknowledges with the replica that is not yet re-pointed",
        patch=_not_settling,
        searches=(Search.FAILOVERS,),
        durability="quorum",
    ),
    Bug(
        "elections are not asked for",
        _set("G2"),
        "an election that outlives the pause behind it completes where no other Sentinel sees it",
        patch=_elections_not_asked_for,
        searches=(Search.DIRECTED,),
        directed=_lost_at(enqueued_during_an_election),
    ),
    Bug(
        "reads do not wait",
        _set("G2"),
        "a deposed master still knows the task that was cancelled elsewhere",
        patch=_without_barrier("get", "list"),
        searches=(Search.DIRECTED,),
        ask=read,
    ),
    Bug(
        "refusals do not wait",
        _set("G4"),
        "a deposed master does not have the task",
        patch=_refusals_do_not_wait,
        searches=(Search.DIRECTED,),
        ask=cancel,
    ),
    Bug(
        "no rollback counter",
        _set("G2"),
        "a store that comes back empty, or without its tail, is served as if it were new",
        patch=_no_ledger,
        searches=(Search.LOST_TAIL,),
    ),
)
