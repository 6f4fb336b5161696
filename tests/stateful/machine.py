"""Level 2: the specification against the real JobStore, one request after the other.

Each rule makes a request, asks both, and compares the answers; after each step the whole of the
shard is read back and compared, field by field. Few ids, request ids and tokens are used, so
that requests meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ddq.config import UNLIMITED_ATTEMPTS
from ddq.store.records import FORMAT
from models import operations as ops
from models.queue import Shard, conserved, effective, step
from tests.stateful.disagreement import difference_of, label_of, promise_of_answer
from tests.stateful.dump import DisagreementError, as_kept, read_shard
from tests.stateful.real import RealShard, comparable

UUID = "00000000-0000-7000-8000-00000000000a"
"""Sorts before the other ids, as its packed name does: the specification need not know of that."""
IDS = st.sampled_from(["a", "b", "c", UUID])
CONTENTS = st.sampled_from([b"one", b"two", b"three-and-longer"])
REQUEST_IDS = st.sampled_from(["", "r1", "r2", "r3"])
POLICIES = st.builds(
    ops.Policy,
    max_attempts=st.sampled_from([1, 2, 3, UNLIMITED_ATTEMPTS]),
    initial_backoff_ms=st.sampled_from([0, 10, 700]),
    max_backoff_ms=st.sampled_from([700, 1_500]),
    multiplier_milli=st.sampled_from([1_000, 2_500]),
    jitter_milli=st.sampled_from([0, 333, 1_000]),
)
WHENS = st.one_of(
    st.builds(ops.When, st.sampled_from([0, 1, 5, 500])),
    st.builds(ops.When, st.integers(999_990, 1_002_000), st.just(value=True)),
)
RANDOMS = st.sampled_from([0.0, 0.25, 0.999])
_POLICY = ops.Policy()
OPERATOR_IDS = st.sampled_from(["r1", "r2", "new", "new"])
"""Of requests that draw a line before what comes later: old ones seldom find anything."""
LOOKS_AND_WALKS = st.sampled_from(
    [
        ops.Get("a"), ops.Survey(), ops.List(ops.State.READY, 10), ops.Collect(500),
        ops.DeleteDead("a"), ops.Redrive(("a",)), ops.Purge(1),
    ]
)  # fmt: skip
LEASES_MS = st.sampled_from([1, 40, 1_000])
MODES = st.sampled_from(
    ["fail", "fail", "existing", "replace_scheduled", "replace_finished", "debounce"]
)
LIMITS_MS = st.sampled_from([1, 40, 450])
"""Of debounces."""


class QueueMachine(RuleBasedStateMachine):
    """Specification and store side by side.

    Attributes:
        socket: of the server to run on; set by the test.
        replace: scripts with a mistake in them, for `make bugs`.
        repeats_ids: whether a batch may name a task twice; the service refuses that.
    """

    socket: ClassVar[str]
    replace: ClassVar[Mapping[str, str] | None] = None
    shard_class: ClassVar[type[RealShard]] = RealShard
    repeats_ids: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.real = self.shard_class(self.socket, self.replace)
        self.now_ms = 1_000_000
        self.spec: Shard = read_shard(self.real.redis, self.real.id)
        self.tokens: list[tuple[str, bytes]] = [("a", b"\xff" * 16)]
        self.leaders: list[tuple[bytes, int]] = [(b"\xee" * 16, 1)]
        self.made = 0
        self.asked: list[tuple[tuple[ops.Operation, ...], str]] = []

    def teardown(self) -> None:
        """Closes the connections."""
        self.real.close()

    def as_sent(self, *operations: Any, request_id: str) -> tuple[Any, str]:
        """What is really asked; the service has bounds of its own."""
        return operations, request_id

    def kept_content(self, content: bytes) -> bytes:
        """What a tombstone keeps of a content."""
        return content

    def alike(self, op: Any, answer: ops.Response, expected: ops.Response) -> bool:
        """Whether an answer is the expected one."""
        return answer == expected

    # Asking both ---------------------------------------------------------------------------

    def ask(
        self,
        *operations: ops.Operation,
        request_id: str = "",
        skew_ms: int = 0,
        left_ms: int = 5_000,
    ) -> ops.Response:
        """One request to both; they must agree."""
        if left_ms >= 0:
            self.asked.append((operations, request_id))
        operations, request_id = self.as_sent(*operations, request_id=request_id)
        request = ops.Request(
            operations,
            caller_ms=self.now_ms + skew_ms,
            request_id=request_id,
            not_after_ms=self.now_ms + left_ms,
        )
        self.spec, response = step(self.spec, request, self.now_ms)
        expected = comparable(request, response)
        try:
            answer = self.real.ask(request, self.now_ms)
            if not self.alike(operations[0], answer, expected):
                promise = promise_of_answer(operations[0], expected, answer)
                raise DisagreementError(
                    f"{promise}: {request}\n  answered {answer}\n  expected {expected}"
                )
        except DisagreementError:
            raise
        except Exception as error:
            # Anything but an answer is a failure of the store; name the operation it broke.
            raise DisagreementError(
                f"{promise_of_answer(operations[0], expected)}: {request}: {error!r}"
            ) from error
        event(f"{type(operations[0]).__name__}: {label_of(response)}")
        return response

    @invariant()
    def same_state(self) -> None:
        """Every key agrees with the specification and with the other keys."""
        kept = read_shard(self.real.redis, self.real.id)
        expected = as_kept(self.spec, self.kept_content)
        if kept != expected:
            raise DisagreementError(difference_of(expected, kept))
        assert conserved(self.spec), "the specification itself loses tasks"

    # Time ----------------------------------------------------------------------------------

    @rule(by_ms=st.sampled_from([0, 1, 39, 40, 41, 500, 1_000, 2_500, 12_000]))
    def time_passes(self, by_ms: int) -> None:
        self.now_ms += by_ms

    @rule(data=st.data(), off_ms=st.sampled_from([-1, 0, 1]))
    def moment_comes(self, data: st.DataObject, off_ms: int) -> None:
        """The moment at which something is due or over, or the one before or behind it."""
        moments_ms = {task.at_ms for task in self.spec.tasks.values()}
        moments_ms.add(self.spec.leader_until_ms)
        ahead_ms = sorted(moment for moment in moments_ms if moment > self.now_ms)
        if ahead_ms:
            self.now_ms = data.draw(st.sampled_from(ahead_ms)) + off_ms

    @rule(by_ms=st.sampled_from([1, 400, 1_500]))
    def clock_steps_back(self, by_ms: int) -> None:
        self.now_ms -= by_ms

    @rule(skew_ms=st.sampled_from([-1_001, -1_000, 1_000, 1_001]), op=LOOKS_AND_WALKS)
    def caller_is_off(self, skew_ms: int, op: ops.Operation) -> None:
        self.ask(op, request_id="r1", skew_ms=skew_ms)

    @rule(task_id=IDS, content=CONTENTS, left_ms=st.sampled_from([-1, 0]))
    def request_comes_late(self, task_id: str, content: bytes, left_ms: int) -> None:
        """A request that comes at its last moment is not late."""
        self.ask(ops.Enqueue(task_id, content), left_ms=left_ms)

    # Producers -----------------------------------------------------------------------------

    @rule(task_id=IDS, content=CONTENTS, when=WHENS, policy=POLICIES)
    def enqueue(self, task_id: str, content: bytes, when: ops.When, policy: ops.Policy) -> None:
        self.ask(ops.Enqueue(task_id, content, when, policy))

    @rule(
        items=st.lists(st.tuples(IDS, CONTENTS, WHENS, MODES), min_size=2, max_size=6),
        request_id=REQUEST_IDS, limit_ms=LIMITS_MS,
    )  # fmt: skip
    def enqueue_batch(
        self, items: list[tuple[str, bytes, ops.When, str]], request_id: str, limit_ms: int
    ) -> None:
        """New tasks, repeats and replacements in one request."""
        self.ask(
            *(
                ops.Enqueue(
                    task_id, content, when, ops.Policy(), mode, None,
                    limit_ms if mode == "debounce" else 0,
                )
                for task_id, content, when, mode in self._each_once(items)
            ),
            request_id=request_id,
        )  # fmt: skip

    def _each_once(self, items: list[Any]) -> list[Any]:
        """The items as they may be in one batch: the first of each id where that must be."""
        if self.repeats_ids:
            return items
        return list({item[0]: item for item in reversed(items)}.values())

    @rule(
        task_id=IDS, content=CONTENTS, when=WHENS, request_id=REQUEST_IDS, data=st.data(),
        mode=st.sampled_from(["existing", "replace_scheduled", "replace_finished", "debounce"]),
        ready=st.booleans(),
    )  # fmt: skip
    def enqueue_over(
        self, task_id: str, content: bytes, when: ops.When, request_id: str, data: st.DataObject,
        mode: str, ready: bool,
    ) -> None:  # fmt: skip
        if ready:
            self._make_ready(task_id)
        expected = data.draw(self._revision(task_id)) if mode.startswith("replace") else None
        limit_ms = data.draw(LIMITS_MS) if mode == "debounce" else 0
        self.ask(
            ops.Enqueue(task_id, content, when, ops.Policy(), mode, expected, limit_ms),
            request_id=request_id,
        )

    @rule(
        task_id=IDS, limit_ms=LIMITS_MS, pauses_ms=st.lists(st.sampled_from([0, 1, 39, 400])),
        delay_ms=st.sampled_from([5, 500]), ready=st.booleans(),
    )  # fmt: skip
    def debounce(
        self, task_id: str, limit_ms: int, pauses_ms: list[int], delay_ms: int, ready: bool
    ) -> None:
        """Events that come one after the other, the task perhaps ready by then."""
        event = ops.Enqueue(
            task_id, b"one", ops.When(delay_ms), ops.Policy(), "debounce", None, limit_ms
        )
        self.ask(event, request_id=self._request_id("new"))
        for pause_ms in pauses_ms[:4]:
            self.now_ms += pause_ms
            if ready:
                self.ask(ops.Promote(*self.leaders[-1], 5_000, 3))
            self.ask(event, request_id=self._request_id("new"))

    @rule(task_id=IDS, revoke=st.booleans(), request_id=REQUEST_IDS)
    def cancel(self, task_id: str, revoke: bool, request_id: str) -> None:
        self.ask(ops.Cancel(task_id, revoke), request_id=request_id)

    @rule(ids=st.lists(IDS, min_size=2, unique=True), request_id=REQUEST_IDS)
    def cancel_batch(self, ids: list[str], request_id: str) -> None:
        self.ask(*(ops.Cancel(task_id) for task_id in ids), request_id=request_id)

    @rule(
        task_id=IDS, when=WHENS, request_id=REQUEST_IDS, data=st.data(),
        times=st.sampled_from([1, 1, 2]),
    )  # fmt: skip
    def reschedule(
        self, task_id: str, when: ops.When, request_id: str, data: st.DataObject, times: int
    ) -> None:
        expected = data.draw(self._revision(task_id))
        for _ in range(times):
            self.ask(ops.Reschedule(task_id, when, expected), request_id=request_id)

    def _revision(self, task_id: str) -> st.SearchStrategy[int | None]:
        task = self.spec.tasks.get(task_id)
        return st.sampled_from([None, task.revision if task else 7, 1])

    # Workers -------------------------------------------------------------------------------

    @rule(
        number=st.integers(1, 3),
        lease_ms=LEASES_MS,
        max_bytes=st.sampled_from([1, 6, 1 << 30]),
        request_id=REQUEST_IDS,
        recall_only=st.sampled_from([False, False, False, True]),
    )
    def retrieve(
        self, number: int, lease_ms: int, max_bytes: int, request_id: str, recall_only: bool
    ) -> None:
        tokens = tuple(self._new_token() for _ in range(0 if recall_only else number))
        response = self.ask(
            ops.Retrieve(lease_ms, tokens, max_bytes, recall_only), request_id=request_id
        )
        if response.status == "OK":
            granted: Any = response.results[0][2]
            self.tokens += [(task_id, token) for task_id, token, _ in granted]

    def _new_token(self) -> bytes:
        self.made += 1
        return self.made.to_bytes(16, "big")

    def _leases(self, data: st.DataObject, most: int = 1) -> list[tuple[str, bytes]]:
        """Tokens that were ever given out, the latest being the likeliest."""
        recent = st.sampled_from(self.tokens[-3:])
        some = st.one_of(recent, recent, st.sampled_from(self.tokens))
        return self._each_once(data.draw(st.lists(some, min_size=1, max_size=most)))

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        self.ask(*(ops.Ack(*lease) for lease in self._leases(data, most=3)))

    @rule(
        data=st.data(), when=WHENS, content=st.sampled_from([None, b"next"]),
        times=st.sampled_from([1, 1, 2]), taken=st.booleans(),
    )  # fmt: skip
    def run_again(
        self, data: st.DataObject, when: ops.When, content: bytes | None, times: int, taken: bool
    ) -> None:
        """Once or twice; the next run may be leased before the repeat comes."""
        (lease,) = self._leases(data)
        for number in range(times):
            if number and taken:
                self.deliver_again(40)
            self.ask(ops.RunAgain(*lease, when, content))

    @rule(
        data=st.data(), delay_ms=st.sampled_from([None, None, 0, 300]), dead=st.booleans(),
        random=RANDOMS,
    )  # fmt: skip
    def nack(self, data: st.DataObject, delay_ms: int | None, dead: bool, random: float) -> None:
        self.ask(
            *(
                ops.Nack(*lease, delay_ms, dead, "went wrong", random)
                for lease in self._leases(data, most=2)
            )
        )

    @rule(data=st.data(), lease_ms=LEASES_MS)
    def extend(self, data: st.DataObject, lease_ms: int) -> None:
        self.ask(*(ops.Extend(*lease, lease_ms) for lease in self._leases(data, most=2)))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.ask(*(ops.Release(*lease) for lease in self._leases(data, most=2)))

    @rule(data=st.data(), delay_ms=st.sampled_from([1, 300]), limit=st.sampled_from([0, 2, 2]))
    def snooze(self, data: st.DataObject, delay_ms: int, limit: int) -> None:
        leases = self._leases(data, most=2)
        self.ask(*(ops.Snooze(*lease, delay_ms, limit) for lease in leases))

    # Whole lives: by single rules they would be rare, and it is late in a life that most breaks --

    @rule(
        task_id=IDS, content=CONTENTS, policy=POLICIES, lease_ms=LEASES_MS, number=st.integers(1, 2)
    )
    def deliver(
        self, task_id: str, content: bytes, policy: ops.Policy, lease_ms: int, number: int
    ) -> None:
        """A task comes in, becomes ready and is leased."""
        self._make_ready(task_id, content, policy)
        self.retrieve_some(number, lease_ms)

    def _make_ready(
        self, task_id: str, content: bytes = b"one", policy: ops.Policy = _POLICY
    ) -> None:
        """A task comes in, in the place of one that has ended, and becomes ready."""
        old = effective(self.spec, self.spec.tasks.get(task_id))
        mode = "replace_finished" if old and old.state >= ops.State.SUCCEEDED else "fail"
        self.ask(ops.Enqueue(task_id, content, ops.When(), policy, mode))
        if (self.spec.nonce, self.spec.epoch) != self.leaders[-1]:
            self.acquire(data=None)
        self.ask(ops.Promote(*self.leaders[-1], 5_000, 3))

    @rule(
        number=st.integers(1, 3),
        lease_ms=LEASES_MS,
        max_bytes=st.sampled_from([1, 3, 6, 1 << 30]),
        later_ms=st.sampled_from([0, 40, 1_000]),
    )
    def retrieve_twice(self, number: int, lease_ms: int, max_bytes: int, later_ms: int) -> None:
        """Several are ready; a reply is lost, and the request repeated."""
        for task_id in ("a", UUID, "c"):
            self._make_ready(task_id)
        request_id = self._request_id("new")
        self.retrieve_some(number, lease_ms, request_id, max_bytes)
        self.now_ms += later_ms
        self.retrieve_some(number, lease_ms, request_id, max_bytes)

    @rule(
        task_id=IDS, later_ms=st.sampled_from([0, 1, 40]),
        how=st.sampled_from([ops.Ack, ops.RunAgain, ops.Nack, ops.Release, ops.Snooze]),
        policy=POLICIES,
    )  # fmt: skip
    def settle_twice(self, task_id: str, later_ms: int, how: Any, policy: ops.Policy) -> None:
        """A lease is settled; the reply is lost, and the request repeated."""
        self._make_ready(task_id, b"two", policy)
        self.retrieve_some(3, 40)
        lease = next((one for one in reversed(self.tokens) if one[0] == task_id), self.tokens[-1])
        self.ask(how(*lease))
        self.now_ms += later_ms
        self.ask(how(*lease))

    @rule(task_id=IDS)
    def die(self, task_id: str) -> None:
        """A task is ready, leased and given up."""
        self._make_ready(task_id)
        self.retrieve_some(3, 1_000)
        for lease in [lease for lease in self.tokens[-3:] if lease[0] == task_id]:
            self.ask(ops.Nack(*lease, dead=True))

    @rule(task_id=IDS, content=CONTENTS, request_id=REQUEST_IDS)
    def live_again(self, task_id: str, content: bytes, request_id: str) -> None:
        """A task ends, and its id lives again."""
        self.ask(ops.Cancel(task_id, revoke=True), request_id=request_id)
        self.ask(
            ops.Enqueue(task_id, content, ops.When(), ops.Policy(), "replace_finished"),
            request_id=request_id,
        )

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A request comes again, as it does when its reply was lost."""
        operations, request_id = data.draw(st.sampled_from(self.asked[-8:]))
        again = tuple(
            replace(op, tokens=tuple(self._new_token() for _ in op.tokens))
            if isinstance(op, ops.Retrieve)
            else op
            for op in operations
        )
        self.ask(*again, request_id=request_id)

    @rule(lease_ms=LEASES_MS)
    def deliver_again(self, lease_ms: int) -> None:
        """What was put back becomes ready and is leased."""
        self.now_ms += 2_500
        self.ask(ops.Promote(*self.leaders[-1], 5_000, 3))
        self.retrieve_some(2, lease_ms)

    @rule(by_ms=st.sampled_from([39, 40, 1_000]))
    def lapse(self, by_ms: int) -> None:
        """Leases run out and are reaped."""
        self.now_ms += by_ms
        self.ask(ops.Reap(*self.leaders[-1], 5_000, (0.5, 0.5, 0.5)))

    def retrieve_some(
        self, number: int, lease_ms: int, request_id: str = "", max_bytes: int = 1 << 40
    ) -> None:
        """Retrieves, and keeps the tokens."""
        tokens = tuple(self._new_token() for _ in range(number))
        response = self.ask(ops.Retrieve(lease_ms, tokens, max_bytes), request_id=request_id)
        if response.status == "OK":
            granted: Any = response.results[0][2]
            self.tokens += [(task_id, token) for task_id, token, _ in granted]

    # Readers -------------------------------------------------------------------------------

    @rule(task_id=IDS)
    def get(self, task_id: str) -> None:
        self.ask(ops.Get(task_id))

    @rule(state=st.sampled_from(ops.State), data=st.data())
    def list_all(self, state: ops.State, data: st.DataObject) -> None:
        at = [(task.at_ms, task.id) for task in self.spec.tasks.values()]
        after = data.draw(st.sampled_from([None, *sorted(at)]))
        self.ask(ops.List(state, 10, after))

    @rule()
    def survey(self) -> None:
        self.ask(ops.Survey())

    # Operators -----------------------------------------------------------------------------

    def _request_id(self, name: str) -> str:
        self.made += name == "new"
        return f"n{self.made}" if name == "new" else name

    def _dead(self) -> list[str]:
        """Dead tasks, or any when none is."""
        dead = [task.id for task in self.spec.tasks.values() if task.state == ops.State.DEAD]
        return sorted(dead) or ["a", UUID]

    @rule(
        name=OPERATOR_IDS,
        limit=st.integers(1, 3),
        dies=st.sampled_from(["", "a", UUID]),
        later_ms=st.sampled_from([0, 1]),
    )
    def redrive_all(self, name: str, limit: int, dies: str, later_ms: int) -> None:
        """In two steps; one may die in between, perhaps in the same millisecond."""
        request_id = self._request_id(name)
        self.ask(ops.Redrive((), limit), request_id=request_id)
        if dies:
            self.now_ms += later_ms
            self.die(dies)
        self.ask(ops.Redrive((), limit), request_id=request_id)

    @rule(name=OPERATOR_IDS, data=st.data(), dies=st.booleans())
    def redrive(self, name: str, data: st.DataObject, dies: bool) -> None:
        """Twice; the task may have died again in between."""
        request_id = self._request_id(name)
        some = st.one_of(IDS, st.sampled_from(self._dead()))
        ids = data.draw(st.lists(some, min_size=1, unique=True))
        self.ask(ops.Redrive(tuple(ids)), request_id=request_id)
        if dies:
            self.die(ids[0])
        self.ask(ops.Redrive(tuple(ids)), request_id=request_id)

    @rule(data=st.data(), dies=st.booleans())
    def delete_dead(self, data: st.DataObject, dies: bool) -> None:
        if dies:
            self.die("a")
        task_id = data.draw(st.one_of(IDS, st.sampled_from(self._dead())))
        self.ask(ops.DeleteDead(task_id, data.draw(self._revision(task_id))))

    @rule(
        name=st.sampled_from(["p1", "p2", "new"]), steps=st.integers(0, 6), limit=st.integers(1, 5),
        comes=st.sampled_from(["", "a", UUID]),
    )  # fmt: skip
    def purge(self, name: str, steps: int, limit: int, comes: str) -> None:
        """Draws the cut, and collects as far as the steps go; one may come in between."""
        request_id = self._request_id(name)
        self.ask(ops.Purge(0), request_id=request_id)
        if comes:
            self._make_ready(comes)
        for _ in range(steps):
            self.ask(ops.Purge(limit), request_id=request_id)

    @rule(
        paused=st.sampled_from([False, False, True]),
        max_tasks=st.sampled_from([0, 0, 2, 3]),
        max_bytes=st.sampled_from([0, 0, 3, 6, 19]),
        retention_ms=st.sampled_from([12_000, 3_600_000]),
    )
    def configure(self, paused: bool, max_tasks: int, max_bytes: int, retention_ms: int) -> None:
        self.ask(ops.Configure(paused, max_tasks, retention_ms, max_bytes))

    # The format of the shard ---------------------------------------------------------------

    @initialize(form=st.sampled_from([1, FORMAT, FORMAT]))
    def first_format(self, form: int) -> None:
        """That of an older store, which the rule below may upgrade, or the latest."""
        while form == FORMAT and not self.upgrade(limit=1):
            pass

    @rule(limit=st.sampled_from([1, 1, 2]))
    def upgrade_step(self, limit: int) -> None:
        """The other rules find the shard before, between and behind these."""
        self.upgrade(limit)

    def upgrade(self, limit: int) -> bool:
        """One step; whether it was the last one. To a client it is as if nothing had happened."""
        request = ops.Request((ops.Survey(),), self.now_ms)
        self.spec, response = step(self.spec, request, self.now_ms)
        status, done = self.real.upgrade(limit, self.now_ms)
        if status != response.status:
            raise DisagreementError(f"G11 conservation: upgrade: {status}, not {response.status}")
        event(f"upgrade: {status}, done: {done}")
        return done

    # Schedulers ----------------------------------------------------------------------------

    @initialize()
    def first_leader(self) -> None:
        """Without a leader nothing is ever delivered, and little is tested."""
        self.acquire(data=None)

    @rule(data=st.data())
    def acquire(self, data: st.DataObject | None) -> None:
        nonce = self._new_token()
        held_nonce, held_epoch = b"", 0
        rank, challenge = 1, False
        if data is not None:
            if data.draw(st.booleans()):
                held_nonce, held_epoch = data.draw(st.sampled_from(self.leaders))
            rank, challenge = data.draw(st.integers(0, 2)), data.draw(st.booleans())
        response = self.ask(ops.Acquire(nonce, 5_000, held_nonce, held_epoch, rank, challenge))
        if response.status == "OK" and response.results[0][0] == "ACQUIRED":
            result: Any = response.results[0]
            self.leaders.append((nonce, result[1]))

    @rule(off_ms=st.sampled_from([-1, 0]))
    def another_leads(self, off_ms: int) -> None:
        """A second scheduler, at the moment at which the leader's time is over or just before."""
        self.now_ms = max(self.now_ms, self.spec.leader_until_ms + off_ms)
        self.acquire(data=None)

    @rule(data=st.data())
    def resign(self, data: st.DataObject) -> None:
        self.ask(ops.Resign(*data.draw(st.sampled_from(self.leaders))))

    def _leader(self, data: st.DataObject) -> tuple[bytes, int]:
        latest = st.just(self.leaders[-1])
        return data.draw(st.one_of(latest, latest, st.sampled_from(self.leaders)))

    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        self.ask(ops.Promote(*self._leader(data), 5_000, 3))

    @rule(data=st.data(), randoms=st.tuples(RANDOMS, RANDOMS, RANDOMS))
    def reap(self, data: st.DataObject, randoms: tuple[float, ...]) -> None:
        self.ask(ops.Reap(*self._leader(data), 5_000, randoms))

    @rule(after=st.sampled_from(["nothing", "a retention", "almost", "records"]))
    def collect(self, after: str) -> None:
        """Also at the first moment at which the oldest may go, and the one before."""
        ends = [task.at_ms for task in self.spec.tasks.values() if task.state not in ops.HELD]
        goes_ms = min(ends, default=self.now_ms) + self.spec.settings.retention_ms
        moments_ms = {
            "a retention": goes_ms,
            "almost": goes_ms - 1,
            "records": min((keep for _, keep in self.spec.records.values()), default=0),
        }
        self.now_ms = max(self.now_ms, moments_ms.get(after, 0))
        self.ask(ops.Collect(500))
