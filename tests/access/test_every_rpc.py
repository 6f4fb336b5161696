"""Every RPC of every service without a token, with the wrong scope and with the right one.

The list comes from the service descriptors: an RPC that has no row in ddq/access/rules.py fails
here, and so does one whose row does not protect it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from ddq.access import RULES, rule_of
from ddq.access.rules import Topics
from ddq.access.scopes import Action
from ddq.client import rpcs
from ddq.config import Settings
from ddq.v1 import delay_queue_admin_service_pb2, delay_queue_service_pb2
from tests.support.access import AccessFile, bearer
from tests.support.server import RunningServer, serving
from tests.support.store import StoreServer

TOPIC = "orders"
METHODS = {
    f"{service.full_name}/{method.name}": method
    for file in (
        delay_queue_service_pb2.DESCRIPTOR,
        delay_queue_admin_service_pb2.DESCRIPTOR,
        health_pb2.DESCRIPTOR,
        reflection_pb2.DESCRIPTOR,
    )
    for service in file.services_by_name.values()
    for method in service.methods
}
PROTECTED = [name for name in METHODS if name in RULES and not RULES[name].public]
SCOPED = [name for name in PROTECTED if RULES[name].action is not None]
UNSUPPORTED = {"grpc.health.v1.Health/List"}
"""RPCs that the library behind a service does not have; they are UNIMPLEMENTED for everyone."""
REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def test_every_rpc_has_a_rule_and_every_rule_an_rpc() -> None:
    assert set(RULES) == set(METHODS)


def test_an_rpc_without_a_rule_keeps_a_server_from_starting() -> None:
    with pytest.raises(LookupError, match="say there which scope it needs"):
        rule_of("ddq.v1.DelayQueueService/Frobnicate")


def test_only_health_is_public() -> None:
    public = {name for name, rule in RULES.items() if rule.public}
    assert public == {name for name in METHODS if name.startswith("grpc.health.v1.Health/")}


def test_reads_need_read_and_changes_by_operators_need_admin() -> None:
    """The client knows which RPCs have an effect, for another purpose."""
    mutates = {
        each.name: each.mutates for each in vars(rpcs).values() if isinstance(each, rpcs.Rpc)
    }
    for name in METHODS:
        service, _, rpc = name.partition("/")
        if not service.startswith("ddq.v1."):
            continue
        single = rpc.removeprefix("Batch").removeprefix("Stream")
        action = RULES[name].action
        assert (action is Action.READ) == (not mutates[single]), name
        if service.endswith("AdminService"):
            assert action in {Action.READ, Action.ADMIN}, name


@dataclass
class Scene:
    server: RunningServer
    access: AccessFile


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> AccessFile:
    return AccessFile(tmp_path_factory.mktemp("access"))


@pytest.fixture(scope="module")
def tokens(access: AccessFile) -> dict[str, str]:
    """For each action: with it on the topic, with all others, with it on other topics."""
    found = {"nothing": access.token(), "everything": access.token("*:all")}
    for action in Action:
        others = ",".join(other for other in Action if other is not action)
        found[f"right {action}"] = access.token(f"{TOPIC}:{action}")
        found[f"everywhere {action}"] = access.token(f"*:{action}")
        found[f"others {action}"] = access.token(f"*:{others}")
        found[f"elsewhere {action}"] = access.token(f"{TOPIC}2:{action}", f"x{TOPIC}:{action}")
    return found


@pytest.fixture
async def scene(
    store_server: StoreServer, access: AccessFile, tokens: dict[str, str]
) -> AsyncIterator[Scene]:
    assert tokens
    async with serving(store_server, access.settings(), scheduler=False) as server:
        yield Scene(server, access)


def request_of(name: str) -> Any:
    """A request that names the topic; else it is empty."""
    # The runtime's descriptors have another type than the published one.
    request: Any = GetMessageClass(METHODS[name].input_type)()  # type: ignore[arg-type]
    where = RULES[name].topics
    if where is Topics.TOPIC:
        request.topic = TOPIC
    elif where is Topics.NAME:
        request.name = TOPIC
    elif where is Topics.TOPICS:
        request.topics.append(TOPIC)
    elif where is Topics.SUBSCRIBED:
        request.subscribe.topics.append(TOPIC)
    return request


async def call(
    channel: grpc.aio.Channel, name: str, token: str | None, data: bytes | None = None
) -> tuple[grpc.StatusCode, grpc.aio.AioRpcError | None]:
    """How a call ends that sends one request; its reply is not looked at."""
    method = METHODS[name]
    request = request_of(name).SerializeToString() if data is None else data
    metadata = bearer(token) if token is not None else None
    codecs: Any = {"request_serializer": bytes, "response_deserializer": bytes}
    try:
        if method.client_streaming:
            begin: Any = channel.stream_stream(f"/{name}", **codecs)
            stream = begin(metadata=metadata, timeout=20)
            try:
                await stream.write(request)
                await stream.done_writing()
            except (grpc.aio.AioRpcError, grpc.aio.UsageError):
                pass
            async for _ in stream:
                break
            else:
                if await stream.code() is not grpc.StatusCode.OK:
                    raise AssertionError("the stream raises by itself")
            stream.cancel()
        elif method.server_streaming:
            replies = channel.unary_stream(f"/{name}", **codecs)(request, metadata=metadata)
            async for _ in replies:
                break
            replies.cancel()
        else:
            await channel.unary_unary(f"/{name}", **codecs)(request, metadata=metadata, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code(), error
    return grpc.StatusCode.OK, None


def info_of(error: grpc.aio.AioRpcError | None) -> error_details_pb2.ErrorInfo:
    assert error is not None
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


@pytest.mark.parametrize("name", PROTECTED)
async def test_without_a_token_nothing_is_served(scene: Scene, name: str) -> None:
    for token in (None, "ddq_nope_nope", "nope"):
        code, error = await call(scene.server.channel, name, token)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        info = info_of(error)
        assert (info.reason, info.domain) == ("UNAUTHENTICATED", "ddq.v1")
    code, _ = await call(scene.server.channel, name, None, data=b"\xff\xff malformed")
    assert code is grpc.StatusCode.UNAUTHENTICATED


def wrong_tokens(name: str) -> Iterator[str]:
    action = RULES[name].action
    yield from ("nothing", f"others {action}", f"elsewhere {action}")
    if RULES[name].topics is Topics.EVERY:
        # One topic is not every topic.
        yield f"right {action}"


@pytest.mark.parametrize("name", SCOPED)
async def test_with_the_wrong_scope_it_is_denied(
    scene: Scene, tokens: dict[str, str], name: str
) -> None:
    for wrong in wrong_tokens(name):
        code, error = await call(scene.server.channel, name, tokens[wrong])
        assert code is grpc.StatusCode.PERMISSION_DENIED, wrong
        info = info_of(error)
        assert (info.reason, info.domain) == ("PERMISSION_DENIED", "ddq.v1")
        topic = "*" if RULES[name].topics is Topics.EVERY else TOPIC
        assert info.metadata["needs"] == f"{topic}:{RULES[name].action}"
        assert error is not None
        assert "ddq token create" in (error.details() or "")


@pytest.mark.parametrize("name", METHODS)
async def test_with_the_right_scope_it_reaches_its_handler(
    scene: Scene, tokens: dict[str, str], name: str
) -> None:
    rule = RULES[name]
    if rule.public:
        fitting: tuple[str | None, ...] = (None,)
    elif rule.action is None:
        fitting = (tokens["nothing"],)
    else:
        narrow = [] if rule.topics is Topics.EVERY else [tokens[f"right {rule.action}"]]
        fitting = (*narrow, tokens[f"everywhere {rule.action}"], tokens["everything"])
    for token in fitting:
        code, error = await call(scene.server.channel, name, token)
        assert code not in REFUSED, error
        assert (code is grpc.StatusCode.UNIMPLEMENTED) == (name in UNSUPPORTED), error


async def test_several_topics_need_a_scope_for_each(scene: Scene, tokens: dict[str, str]) -> None:
    request = delay_queue_service_pb2.RetrieveRequest(topics=[TOPIC, "other"])
    token = bearer(tokens[f"right {Action.CONSUME}"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.server.queue.Retrieve(request, metadata=token)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert info_of(caught.value).metadata["needs"] == "other:consume"


@pytest.mark.parametrize(
    ("setting", "service"),
    [
        ("admin_api", "ddq.v1.DelayQueueAdminService/"),
        ("reflection", "grpc.reflection.v1alpha.ServerReflection/"),
        ("health_api", "grpc.health.v1.Health/"),
    ],
)
async def test_services_can_be_switched_off(
    store_server: StoreServer, tmp_path: Path, setting: str, service: str
) -> None:
    own = AccessFile(tmp_path)
    everything = own.token("*:all")
    settings = Settings(drain_ms=1, **{setting: False})  # type: ignore[arg-type]
    async with serving(store_server, own.settings(settings), scheduler=False) as server:
        for name in METHODS:
            code, _ = await call(server.channel, name, everything)
            off = name.startswith(service) or name in UNSUPPORTED
            assert (code is grpc.StatusCode.UNIMPLEMENTED) == off, name
