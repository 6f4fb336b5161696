"""RPCs about one task that have a batch form, whose items have the same fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ddq.client.batch import I, Item
from ddq.client.rpcs import Rpc

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class ItemRpc(Generic[I, V]):
    """Both forms of an RPC.

    Attributes:
        item: the message of an item of the batch.
        single, batch: the messages of the requests.
        method, batch_method: of the stub.
        convert: the value of a reply, from its result and its receipt.
    """

    rpc: Rpc
    item: type[I]
    single: Callable[..., Message]
    method: Any
    batch: Callable[..., Message]
    batch_method: Any
    convert: Callable[[Any, Any], V]

    def request(self, item: Item[I], not_after: Timestamp | None = None) -> Any:
        """The request for one item by itself."""
        fields = {field.name: value for field, value in item.message.ListFields()}
        if item.request_id:
            fields["request_id"] = item.request_id
        return self.single(topic=item.topic, not_after=not_after, **fields)

    def batch_request(
        self, topic: str, items: Sequence[I], not_after: Timestamp, request_id: str | None = None
    ) -> Message:
        """The request for some items of one topic."""
        named = {"request_id": request_id} if request_id else {}
        return self.batch(topic=topic, items=items, not_after=not_after, **named)

    def value(self, answer: Any) -> V:
        """The value of a reply, or of the part of a batch's reply about one item."""
        return self.convert(answer.result, answer.receipt)
