"""Synthetic histories: runs without a cluster that keep every promise, by the specification.

For tests, which then break it by hand, for the bench, and to see what a report looks like.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from chaos.history.notes import FaultNote, RunNote
from chaos.history.operations import (
    Cancel,
    Cancelled,
    Counted,
    Counts,
    Enqueue,
    Enqueued,
    Extend,
    Extended,
    Failed,
    Get,
    Lease,
    Nack,
    Nacked,
    RanAgain,
    Redrive,
    Reschedule,
    Rescheduled,
    Retrieve,
    Retrieved,
    RetrySettings,
    RunAgain,
    Seen,
    Settle,
    Settled,
    Snooze,
    Snoozed,
    Value,
)
from chaos.history.run_folder import Final, FinalTopic, Run
from chaos.history.synthetic_store import MS, WALL_MS, SyntheticStore
from models import operations as spec

TOOK_NS = 2 * MS
"""How long an operation takes; it happens in the middle."""

REASONS = {
    "NOT_FOUND": "TASK_NOT_FOUND", "LEASED": "TASK_LEASED", "FINISHED": "TASK_FINISHED",
    "READY": "TASK_READY", "SCHEDULED": "TASK_ID_CONFLICT",
    "LEASE_LOST": "LEASE_LOST", "SNOOZED_OUT": "SNOOZE_LIMIT",
    "CONFLICT": "TASK_ID_CONFLICT", "REVISION": "REVISION_MISMATCH",
}  # fmt: skip


class SyntheticHistory(SyntheticStore):
    """The operations of clients on a synthetic store; see ``SyntheticStore``.

    Attributes:
        trimmed: how many entries its journal has dropped, as the stream says.
    """

    trimmed = 0

    def op(
        self,
        process: str,
        op: str,
        request: Value,
        call: spec.Operation | None,
        read: Any,
        *,
        request_id: str = "",
        lost: bool = False,
        arrives: bool = True,
    ) -> Any:
        """Adds one operation; ``lost``: its reply, and unless it ``arrives`` it itself too."""
        self.now_ns += MS
        self._event(process, "invoke", op, request=request)
        self.now_ns += TOOK_NS // 2
        result = self.step(call, request_id) if call is not None and arrives else ("NONE",)
        self.now_ns += TOOK_NS // 2
        if lost:
            self._event(process, "info", op, reply=Failed("OUTCOME_UNKNOWN"))
            return None
        if result[0] in REASONS and op != "retrieve":
            self._event(process, "fail", op, reply=Failed(REASONS[result[0]]))
            return None
        reply = read(result)
        self._event(process, "ok", op, reply=reply)
        return reply

    def _event(self, process: str, kind: str, op: str, **values: Value) -> None:
        self.events.append(
            {"time_ns": self.now_ns, "process": process, "type": kind, "op": op}
            | {name: msgspec.to_builtins(value) for name, value in values.items()}
        )

    def note(self, process: str, op: str, value: Value) -> None:
        """A fault, a role, a leader and the like."""
        self._event(process, "info", op, reply=value)

    def fault(self, kind: str, target: str, phase: Any) -> None:
        """A fault begins or ends."""
        self.note("nemesis", "fault", FaultNote(kind, target, phase))

    def _stamp(self, revision: int) -> dict[str, Any]:
        return {
            "revision": revision,
            "store_ms": self.now_ms - TOOK_NS // 2 // MS,
            "lineage": self.lineage,
        }

    def enqueue(
        self,
        task_id: str,
        payload: str = "",
        *,
        delay_ms: int = 0,
        process: str = "p",
        on_conflict: Any = "fail",
        policy: RetrySettings | None = None,
        limit_ms: int | None = None,
        lost: bool = False,
        arrives: bool = True,
    ) -> Enqueued | None:
        """A new task; the payload is unique unless given."""
        payload = payload or f"payload of {task_id}"
        used = policy or self.policy
        call = spec.Enqueue(
            task_id,
            f"{payload} {delay_ms}".encode(),
            spec.When(delay_ms),
            spec.Policy(
                used.max_attempts or 5,
                used.initial_backoff_ms or 0,
                used.max_backoff_ms or 0,
                int((used.multiplier or 2) * 1000),
                int((used.jitter or 0) * 1000),
            ),
            on_conflict,
            None,
            limit_ms or 0,
        )
        request = Enqueue(
            self.topic, task_id, payload, delay_ms, None, on_conflict, None, policy, limit_ms
        )
        reply: Enqueued | None = self.op(
            process, "enqueue", request, call,
            lambda r: Enqueued(
                **self._stamp(r[2]), created=r[0] == "CREATED", state=r[1].name.lower(),
                incarnation=r[3], due_ms=r[4],
            ),
            request_id=self._request_id(), lost=lost, arrives=arrives,
        )  # fmt: skip
        return reply

    def retrieve(
        self,
        *,
        process: str = "w",
        max_tasks: int = 1,
        lease_ms: int = 10_000,
        wait_ms: int = 0,
        request_id: str = "",
        lost: bool = False,
        arrives: bool = True,
    ) -> list[Lease]:
        """Leases what is ready; ``wait_ms`` is only said, and nothing is waited for."""
        request_id = request_id or self._request_id()
        call = spec.Retrieve(lease_ms, tuple(self.random.randbytes(16) for _ in range(max_tasks)))
        request = Retrieve([self.topic], request_id, max_tasks, lease_ms, wait_ms)
        reply = self.op(
            process, "retrieve", request, call,
            lambda r: Retrieved([self._lease(*lease) for lease in r[2]]),
            request_id=request_id, lost=lost, arrives=arrives,
        )  # fmt: skip
        return reply.leases if reply else []

    def lease(self, **options: Any) -> Lease:
        """The one task that is ready."""
        (lease,) = self.retrieve(**options)
        return lease

    def _lease(self, task_id: str, token: bytes, expire_ms: int) -> Lease:
        task = self.shard.tasks[task_id]
        return Lease(
            **self._stamp(task.revision), topic=self.topic, id=task_id, token=token.hex(),
            payload=task.content.decode().rsplit(" ", 1)[0], incarnation=task.incarnation,
            promotion=task.promotion, attempt=task.attempt, run=task.run, due_ms=task.due_ms,
            expire_ms=expire_ms,
        )  # fmt: skip

    def ack(self, lease: Lease, *, process: str = "w", **how: Any) -> Settled | None:
        """Finishes it."""
        reply: Settled | None = self.op(
            process, "ack", Settle(self.topic, lease.id, lease.token),
            spec.Ack(lease.id, bytes.fromhex(lease.token)),
            lambda r: Settled(**self._stamp(r[1])), **how,
        )  # fmt: skip
        return reply

    def run_again(
        self, lease: Lease, *, delay_ms: int = 100, payload: str | None = None,
        process: str = "w", **how: Any,
    ) -> RanAgain | None:  # fmt: skip
        """Finishes it, and plans its next run."""
        content = None if payload is None else f"{payload} {delay_ms}".encode()
        reply: RanAgain | None = self.op(
            process, "run_again",
            RunAgain(self.topic, lease.id, lease.token, delay_ms, None, payload),
            spec.RunAgain(lease.id, bytes.fromhex(lease.token), spec.When(delay_ms), content),
            lambda r: RanAgain(**self._stamp(r[1]), incarnation=r[1], due_ms=r[2]), **how,
        )  # fmt: skip
        return reply

    def release(self, lease: Lease, *, process: str = "w", **how: Any) -> Settled | None:
        """Hands it back."""
        reply: Settled | None = self.op(
            process, "release", Settle(self.topic, lease.id, lease.token),
            spec.Release(lease.id, bytes.fromhex(lease.token)),
            lambda r: Settled(**self._stamp(r[1])), **how,
        )  # fmt: skip
        return reply

    def snooze(
        self, lease: Lease, *, delay_ms: int = 400, process: str = "w", **how: Any
    ) -> Snoozed | None:
        """Puts it off without counting the attempt."""
        reply: Snoozed | None = self.op(
            process, "snooze", Snooze(self.topic, lease.id, lease.token, delay_ms),
            spec.Snooze(lease.id, bytes.fromhex(lease.token), delay_ms),
            lambda r: Snoozed(**self._stamp(r[1]), due_ms=r[2]), **how,
        )  # fmt: skip
        return reply

    def nack(
        self,
        lease: Lease,
        *,
        delay_ms: int | None = None,
        dead: bool = False,
        process: str = "w",
        **how: Any,
    ) -> Nacked | None:
        """Gives it up for now."""
        reply: Nacked | None = self.op(
            process, "nack", Nack(self.topic, lease.id, lease.token, delay_ms, dead),
            spec.Nack(lease.id, bytes.fromhex(lease.token), delay_ms, dead, "", 0.5),
            lambda r: Nacked(**self._stamp(r[2]), state=r[1].name.lower(), due_ms=r[3]), **how,
        )  # fmt: skip
        return reply

    def extend(
        self, lease: Lease, lease_ms: int = 10_000, *, process: str = "w", **how: Any
    ) -> Extended | None:
        """Keeps it for longer."""
        reply: Extended | None = self.op(
            process, "extend", Extend(self.topic, lease.id, lease.token, lease_ms),
            spec.Extend(lease.id, bytes.fromhex(lease.token), lease_ms),
            lambda r: Extended(**self._stamp(r[1]), expire_ms=r[2]), **how,
        )  # fmt: skip
        return reply

    def cancel(
        self, task_id: str, *, revoke: bool = False, process: str = "p", **how: Any
    ) -> Cancelled | None:
        """Ends it."""
        reply: Cancelled | None = self.op(
            process, "cancel", Cancel(self.topic, task_id, revoke), spec.Cancel(task_id, revoke),
            lambda r: Cancelled(**self._stamp(r[1]), incarnation=r[2], already=r[0] == "ALREADY"),
            request_id=self._request_id(), **how,
        )  # fmt: skip
        return reply

    def reschedule(
        self, task_id: str, *, delay_ms: int = 0, process: str = "p", **how: Any
    ) -> Rescheduled | None:
        """Another time for it."""
        reply: Rescheduled | None = self.op(
            process, "reschedule", Reschedule(self.topic, task_id, delay_ms),
            spec.Reschedule(task_id, spec.When(delay_ms)),
            lambda r: Rescheduled(**self._stamp(r[1]), due_ms=r[2]),
            request_id=self._request_id(), **how,
        )  # fmt: skip
        return reply

    def get(self, task_id: str, *, process: str = "p") -> Seen | None:
        """Looks at it."""
        reply: Seen | None = self.op(
            process, "get", Get(self.topic, task_id), spec.Get(task_id),
            lambda r: Seen(
                revision=r[1][2], state=r[1][1].name.lower(), incarnation=r[1][3],
                promotion=r[1][4], attempt=r[1][5], run=r[1][6], due_ms=r[1][7],
            ),
        )  # fmt: skip
        return reply

    def redrive(self, task_id: str) -> None:
        """A new run for a dead one, as an operator gives it."""
        self.op(
            "o", "redrive", Redrive(self.topic, [task_id]), spec.Redrive((task_id,)),
            lambda r: Counted(r[0]), request_id=self._request_id(),
        )  # fmt: skip

    def _request_id(self) -> str:
        return f"{self.random.getrandbits(64):016x}"

    # The end ---------------------------------------------------------------------------------

    def final(self) -> FinalTopic:
        """What is left."""
        counts = Counts(**{name: value for name, value in self.shard.counts.items() if value})
        held: dict[Any, dict[str, int]] = {}
        for task in self.shard.tasks.values():
            if task.state in spec.HELD:
                held.setdefault(task.state.name.lower(), {})[task.id] = task.incarnation
        return FinalTopic([counts], held, [self.trimmed])


def write_run(
    folder: Path,
    *histories: SyntheticHistory,
    journal: bool = True,
    drained: bool = True,
    final: bool = True,
) -> Run:
    """Writes histories as a run's folder; events of several in the order of time."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    note = RunNote(
        WALL_MS,
        {synthetic.topic: synthetic.settings for synthetic in histories},
        "synthetic",
        durability="ALL",
    )
    first = {"time_ns": 0, "process": "harness", "type": "info", "op": "run"}
    events = sorted(
        (event for synthetic in histories for event in synthetic.events),
        key=lambda event: event["time_ns"],
    )
    with run.history.open("w") as file:
        for index, event in enumerate([first | {"reply": msgspec.to_builtins(note)}, *events]):
            file.write(json.dumps({"index": index} | event) + "\n")
    if journal:
        with run.journal.open("w") as file:
            for synthetic in histories:
                file.writelines(json.dumps(entry) + "\n" for entry in synthetic.journal)
    run.write_problems([])
    if final:
        run.write_final(
            Final({synthetic.topic: synthetic.final() for synthetic in histories}, drained)
        )
    return run


__all__ = ["WALL_MS", "SyntheticHistory", "write_run"]
