"""The client for asyncio."""

from __future__ import annotations

from types import TracebackType

from ddq.client.streams import StreamCalls
from ddq.client.topics import TopicCalls


class Client(StreamCalls, TopicCalls):
    """One connection to a ddq server, for asyncio.

    Safe requests are repeated with the same ids until they succeed, fail for good or run out of
    time, so an answer means what it says whatever happened to the connection in between. It may
    be shared by any number of tasks of the event loop that it was made in::

        async with Client("127.0.0.1:50051") as client:
            await client.enqueue("mail", b"hello", delay=timedelta(seconds=90))
    """

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
