"""How a Retrieve gets its tasks: which shards it asks, in which order, and how it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ddq.errors import DdqError, StoreUnreachable, TopicNotFound, Unavailable, WriteOutcomeUnknown
from ddq.server.absence import Absences, Watch, is_trouble
from ddq.server.notifier import ReadyNotifier, Waiter
from ddq.server.questions import (
    REPLY_MARGIN_S,
    SHARE_S,
    AskedShard,
    Found,
    Question,
    probe_call,
)
from ddq.server.round_robin import RoundRobin
from ddq.store.job_values import ENVELOPES_MAX_BYTES, Leased
from ddq.store.jobstore import JobStore
from ddq.store.keys import ShardId
from ddq.store.runner import Call
from ddq.store.topics import TopicRegistry
from ddq.store.topology import Node
from ddq.task import Topic

ONE_BY_ONE_MAX_COUNT = 8
"""More shards than this are first asked all at once what is ready there."""
SAFETY_S = 30.0
"""A Retrieve whose "ready" hint was lost asks its shards again after this long."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a Retrieve asks for.

    Attributes:
        max_bytes: of payloads and headers.
        lease_ms: how long each lease runs; None for the topic's default.
        wait_s: how long to wait for the first task.
    """

    topics: Sequence[str]
    max_tasks: int
    max_bytes: int
    lease_ms: int | None
    wait_s: float


class Leave:
    """Lets the caller of a Retrieve end its wait, without cutting off a script that may lease."""

    def __init__(self) -> None:
        self.wanted = False
        self.waiter: Waiter | None = None

    def now(self) -> None:
        """The wait ends; what is leased by then is returned."""
        self.wanted = True
        # One that was woken looks by itself, and passes on what it was woken for.
        waiter = self.waiter
        if waiter is not None and waiter.waits and not waiter.notified:
            waiter.notify(None)


class Standing:
    """The place of a stream among those that wait, which it keeps from one reply to the next.

    Attributes:
        is_current: all shards were asked, and what has become ready since was announced: there is
            no need to ask before the next wait.
    """

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.is_current = False

    def note(self, found: Found, only: frozenset[ShardId] = frozenset()) -> None:
        """Takes in the answers of all shards, or of some."""
        asked = only or {shard.id for shard in found.shards}
        complete = found.error is None and not found.ended and asked <= found.answered
        self.is_current = complete and (self.is_current or not only)


class Retrieval:
    """Leases tasks from the shards of several topics, fairly, and waits for the first.

    Args:
        notifier: wakes calls that wait.
        known_node: the master of a key as far as it is known; see Topology.known_node.
    """

    def __init__(
        self,
        topics: TopicRegistry,
        jobs: JobStore,
        notifier: ReadyNotifier,
        known_node: Callable[[str], Node | None],
    ) -> None:
        self._topics = topics
        self._known_node = known_node
        self._jobs = jobs
        self._notifier = notifier
        self._round_robin = RoundRobin()
        self._absences = Absences()
        self._ending = asyncio.Event()

    def end_waits(self) -> None:
        """Calls that wait for a task are answered empty now, and no call waits from now on."""
        self._ending.set()
        self._notifier.wake()

    @property
    def is_ending(self) -> bool:
        """Whether no call waits any more."""
        return self._ending.is_set()

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._absences.close()

    @contextmanager
    def standing(self, topics: Sequence[str]) -> Iterator[Standing]:
        """A place for retrieve(), while the block runs. A stream without credit has none: it would
        get the wake-ups of others."""
        with self._notifier.waiting(topics) as waiter:
            yield Standing(waiter)

    async def retrieve(
        self,
        wanted: Wanted,
        call: Call,
        leave: Leave | None = None,
        standing: Standing | None = None,
    ) -> list[Leased]:
        """Leases tasks; an empty list if none became ready in time.

        Args:
            leave: ends the wait.
            standing: of a stream; None: the call waits for itself alone.

        Raises:
            StoreUnreachable: nothing was found, and at least one shard could not be asked.
            DdqError: as JobStore.retrieve, of the first shard that failed; nothing was leased.
        """
        loop = asyncio.get_running_loop()
        until_s = min(loop.time() + wanted.wait_s, call.deadline_s - REPLY_MARGIN_S)
        # A slot that is being moved would be waited for until the deadline.
        call = replace(call, waits_for_slot=False)
        leave = leave or Leave()
        with ExitStack() as stack:
            standing = standing or stack.enter_context(self.standing(wanted.topics))
            waiter = leave.waiter = standing.waiter
            found = Found()
            if not standing.is_current:
                waiter.ask()
                found = await self._try(wanted, call, first=True)
                standing.note(found)
            while not found.is_final and (left_s := until_s - loop.time()) > 0:
                if not (self._ending.is_set() or leave.wanted):
                    await waiter.wait(min(left_s, SAFETY_S))
                if self._ending.is_set() or leave.wanted:
                    # A hint reaches every server, and each wakes calls of its own.
                    return []
                found = await self._try_notified(standing, wanted, call)
            waiter.rest()
        if not found.is_final:
            for shard in found.shards:
                if error := self._absences.error(shard.name):
                    # There may be tasks on the shards that this call skipped.
                    raise error
            if found.error is not None:
                raise found.error
        return found.leases

    async def _try_notified(self, standing: Standing, wanted: Wanted, call: Call) -> Found:
        """Asks the shards that a wake-up named.

        A call that ends passes on the wake-ups that it did not use: the tasks are still there, and
        no other Retrieve was woken for them.
        """
        waiter = standing.waiter
        only = waiter.take()
        unused = waiter.taken
        try:
            found = await self._try(wanted, call, only)
            standing.note(found, only)
            # A shard that did not answer wakes a Retrieve when it does.
            unused = waiter.taken - found.answered if found.is_final else frozenset()
            return found
        finally:
            for shard in unused:
                self._notifier.notify(shard, 1)

    # One round of questions ----------------------------------------------------------------

    async def _try(
        self,
        wanted: Wanted,
        call: Call,
        only: frozenset[ShardId] = frozenset(),
        *,
        first: bool = False,
    ) -> Found:
        """Asks the shards, or those in ``only``, each in its turn, until the reply is full."""
        found = Found()
        shards = found.shards = await self._shards(wanted.topics, call, found)
        is_alone = len(shards) == 1
        if only:
            shards = [shard for shard in shards if shard.id in only]
        present = self._present(shards, found)
        # Where all are absent the call has nothing to lose by asking.
        asked = present if present or only else shards
        has_to_recall = first and call.request_id and len(found.shards) > 1
        if asked and (has_to_recall or len(asked) > ONE_BY_ONE_MAX_COUNT):
            asked = await self._recall(self._beside(asked, shards), call, found)
        if not found.ended:
            await self._lease(asked, wanted, call, found, is_alone=is_alone)
        if found.error and not (found.answered or found.is_final) and (is_alone or not only):
            raise found.error
        return found

    async def _shards(self, names: Sequence[str], call: Call, found: Found) -> list[AskedShard]:
        """Every shard of the topics that exist, as far as this can be found out in time."""
        if len(names) == 1:
            # As nearly always: a task of its own costs as much as all the rest here.
            topics = [await self._topic(names[0], call, found)]
        else:
            topics = await asyncio.gather(*(self._topic(name, call, found) for name in names))
        return [
            AskedShard(topic, index)
            for topic in topics
            if topic is not None
            for index in range(topic.shards)
        ]

    async def _topic(self, name: str, call: Call, found: Found) -> Topic | None:
        """The topic; None if it does not exist, or if the registry did not say in time."""
        key = f"the record of topic {name!r}"
        if error := self._absences.error(key):
            found.error = error
            return None
        ask = Question.of(call, SHARE_S)

        async def probe() -> int:
            await self._topics.load(name, probe_call())
            return 0

        try:
            return await self._topics.find(name, ask.call)
        except Unavailable as error:
            found.error = error
            if ask.shows_absence(error):
                wake = self._notifier.notify_all
                watch = Watch(probe, lambda: self._notifier.has_waiters(name), lambda _: wake(name))
                self._absences.note(key, error, watch)
            return None

    def _present(self, shards: Sequence[AskedShard], found: Found) -> list[AskedShard]:
        """Those that answered when they were asked last."""
        present = []
        for shard in shards:
            if error := self._absences.error(shard.name):
                found.error = error
            else:
                present.append(shard)
        return present

    def _beside(self, present: list[AskedShard], shards: Sequence[AskedShard]) -> list[AskedShard]:
        """Those that are present, and absent ones whose node answers for a present one.

        That node is well, or has just become master: what an absent shard there has given to an
        earlier attempt has to be known before another shard gives anything.
        """
        nodes = {self._node_of(shard) for shard in present} - {None}
        absent = [shard for shard in shards if shard not in present]
        return [*present, *(shard for shard in absent if self._node_of(shard) in nodes)]

    def _node_of(self, shard: AskedShard) -> Node | None:
        return self._known_node(shard.id.key("control"))

    def _note_absent(self, shard: AskedShard, error: DdqError) -> None:
        async def probe() -> int:
            _, _, ready = await self._ask(shard, probe_call())
            return ready

        watch = Watch(
            probe,
            wanted=lambda: self._notifier.has_waiters(shard.topic.name),
            on_return=lambda ready: self._notifier.notify(shard.id, ready),
        )
        self._absences.note(shard.name, error, watch)

    async def _recall(
        self, shards: Sequence[AskedShard], call: Call, found: Found
    ) -> list[AskedShard]:
        """Asks all shards at once what is ready there, and what this request was answered before.

        Returns:
            The shards that answered and have tasks. The others are not asked a second time: 1,024
            of them, one after the other, would take most of a second. What becomes ready there
            from now on is announced by a hint, for which this call already waits.

        All are asked before anything is leased: a repeat that began with another shard than the
        first attempt would else lease a second time. One that does not answer cannot say, and must
        not keep the tasks of the others from all callers: what it leased to an earlier attempt, if
        it did, expires there.
        """
        ask = Question.of(call)
        asks = {asyncio.create_task(self._ask(shard, ask.call)): shard for shard in shards}
        with_tasks: list[AskedShard] = []
        repeated_count = 0
        try:
            done, _ = await asyncio.wait(asks, timeout=SHARE_S)
            if not done:
                # It is the whole store that is slow.
                await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait(asks, timeout=SHARE_S)
            for task, shard in asks.items():
                try:
                    if not task.done():
                        raise StoreUnreachable(f"{shard.name} did not answer within {SHARE_S:g} s")
                    leases, repeated, ready = task.result()
                except DdqError as error:
                    if not is_trouble(error):
                        raise
                    found.error = error
                    if not task.done() or ask.shows_absence(error):
                        self._note_absent(shard, error)
                else:
                    repeated_count += repeated
                    found.add(leases)
                    if ready:
                        with_tasks.append(shard)
                    else:
                        found.answered.add(shard.id)
        finally:
            await _cancelled(asks)
        found.ended = repeated_count > 0
        return with_tasks

    async def _lease(
        self,
        shards: Sequence[AskedShard],
        wanted: Wanted,
        call: Call,
        found: Found,
        *,
        is_alone: bool,
    ) -> None:
        for shard in self._round_robin.order(shards, lambda shard: shard.id):
            if len(found.leases) >= wanted.max_tasks or found.size_bytes >= wanted.max_bytes:
                return
            self._round_robin.ask(shard.id)
            # Half of what is left, so that some is left for every other shard.
            ask = Question.of(call, share=1.0 if is_alone else 0.5)
            try:
                leases, repeated, ready = await self._ask(
                    shard,
                    ask.call,
                    max_tasks=wanted.max_tasks - len(found.leases),
                    max_bytes=wanted.max_bytes - found.size_bytes,
                    max_envelopes_bytes=ENVELOPES_MAX_BYTES - found.envelopes_bytes,
                    first_may_exceed=not found.leases,
                    lease_ms=wanted.lease_ms,
                )
            except DdqError as error:
                if is_trouble(error) and not is_alone and ask.shows_absence(error):
                    self._note_absent(shard, error)
                if is_trouble(error) and not isinstance(error, WriteOutcomeUnknown):
                    found.error = error
                    continue
                # A task may be leased there, and only a repeat can get it. What is leased by now
                # belongs to the caller, which would otherwise wait for its expiry.
                if found.leases:
                    found.ended = True
                    return
                raise
            found.add(leases)
            if repeated:
                # The first attempt was answered, and what it got may have lapsed. A repeat leases
                # nothing new, and must not wait: it would use up the wake-ups of others.
                found.ended = True
                return
            found.answered.add(shard.id)
            if ready:
                self._notifier.notify(shard.id, ready)

    async def _ask(
        self, shard: AskedShard, call: Call, **options: Any
    ) -> tuple[list[Leased], bool, int]:
        """JobStore.retrieve, and nothing from a topic that another process has deleted.

        Without options it leases nothing and says what a request of this id was answered before.
        """
        if not options:
            options = {"max_tasks": 0, "max_bytes": 0, "lease_ms": 0, "recall_only": True}
        try:
            return await self._jobs.retrieve(shard.topic, shard.index, call=call, **options)
        except TopicNotFound:
            return [], False, 0


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Ends the tasks that still run."""
    tasks = [*tasks]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
