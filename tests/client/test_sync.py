"""The façade is the client, and __all__ is what is exported."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import ddq.client
import ddq.worker
from ddq import errors
from ddq.client import Client, LeaseRef, SyncClient, TaskState
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.client.fake import FakeServer, refusal

LEASE = LeaseRef("mail", "a", b"token")
ONLY_ASYNC = {"address", "duplicate", "open_stream", "stream_retrieve"}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_it_has_every_method_of_the_client() -> None:
    assert public(Client) - public(SyncClient) == ONLY_ASYNC
    assert public(SyncClient) - public(Client) == {"client", "run"}


@pytest.mark.parametrize("name", sorted(public(Client) - ONLY_ASYNC - {"close"}))
def test_methods_take_the_same(name: str) -> None:
    ours = inspect.signature(getattr(SyncClient, name)).parameters
    theirs = inspect.signature(getattr(Client, name)).parameters
    assert list(ours.values()) == list(theirs.values())


@pytest.mark.parametrize("module", [ddq.client, ddq.worker])
def test_all_is_what_is_exported(module: object) -> None:
    names = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert names == set(module.__all__)  # type: ignore[attr-defined]
    # As ruff sorts them: constants first.
    in_order = sorted(names, key=lambda name: (not name.isupper(), name))
    assert list(module.__all__) == in_order  # type: ignore[attr-defined]


async def test_calls_errors_and_pages(server: FakeServer) -> None:
    server.script["Ack"] = [
        pb.AckResponse(result=pb.AckResult(revision=3)),
        refusal(errors.LeaseLost),
    ]
    server.script["ListTasks"] = [
        pb.ListTasksResponse(
            tasks=[task_pb2.Task(id="a", state=task_pb2.TASK_STATE_READY)], next_page_token="2"
        ),
        pb.ListTasksResponse(next_page_token="3"),
        pb.ListTasksResponse(tasks=[task_pb2.Task(id="b", state=task_pb2.TASK_STATE_READY)]),
    ]

    def use() -> list[str]:
        with SyncClient(server.address) as client:
            assert client.ack(LEASE).revision == 3
            with pytest.raises(errors.LeaseLost):
                client.ack(LEASE)
            return [task.id for task in client.list_tasks("mail", TaskState.READY)]

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        assert await loop.run_in_executor(pool, use) == ["a", "b"]
    assert [request.page_token for request in server.requests["ListTasks"]] == ["", "2", "3"]


def test_closing_ends_the_thread() -> None:
    client = SyncClient("127.0.0.1:1", timeout_s=0.1)
    with pytest.raises(errors.TransportError):
        client.check_health()
    client.close()
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ddq client"]
    with pytest.raises(RuntimeError, match="closed"):
        client.check_health()
