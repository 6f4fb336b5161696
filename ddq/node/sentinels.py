"""Asks the Sentinels, each of them, each time on a new connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ddq.node.decision import SentinelAnswer


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Where they are, and how they let one in.

    Attributes:
        addresses: (host, port) of each one there is, whether it answers or not.
        master_name: under which they watch the master.
        timeout_s: for one of them to answer.
        tls: whether they speak TLS; ``ca_file`` is the authority to trust beside the system's.
    """

    addresses: Sequence[tuple[str, int]]
    master_name: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    timeout_s: float = 1.0

    async def views(self) -> tuple[list[SentinelAnswer], list[str]]:
        """What those say that answer, and what is wrong with each of the others."""
        answers = await asyncio.gather(*(self._view(*address) for address in self.addresses))
        views = [answer for answer in answers if isinstance(answer, SentinelAnswer)]
        return views, [answer for answer in answers if isinstance(answer, str)]

    async def _view(self, host: str, port: int) -> SentinelAnswer | str:
        client = redis.asyncio.Redis(
            host=host,
            port=port,
            username=self.username,
            password=self.password,
            ssl=self.tls,
            ssl_ca_certs=self.ca_file,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            async with asyncio.timeout(self.timeout_s):
                state = cast("dict[str, Any]", await client.sentinel_master(self.master_name))
            return SentinelAnswer(
                master=f"{state['ip']}:{state['port']}",
                replicas_count=int(state["num-slaves"]),
                config_epoch=int(state["config-epoch"]),
            )
        except TimeoutError:
            return f"{host}:{port} does not answer"
        except (OSError, redis.exceptions.ConnectionError):
            return f"{host}:{port} cannot be reached"
        except redis.exceptions.RedisError as error:
            return f"{host}:{port} says: {error}"
        finally:
            await client.aclose()
