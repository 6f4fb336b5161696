"""A stranger with grpcurl: everything that the documents promise, by reflection alone."""

from __future__ import annotations

import base64
from typing import Any

from tests.e2e.conftest import Grpcurl

TOKEN = base64.b64encode(bytes(16)).decode()


def task(task_id: str, payload: bytes = b"payload", **spec: Any) -> dict[str, Any]:
    return {"id": task_id, "payload": base64.b64encode(payload).decode(), **spec}


def enqueue(grpcurl: Grpcurl, task_id: str, payload: bytes = b"payload", **spec: Any) -> Any:
    answer = grpcurl("Enqueue", {"topic": "jobs", "task": task(task_id, payload, **spec)})
    assert answer.code == "OK", answer
    return answer.reply["result"]


def lease(grpcurl: Grpcurl, count: int = 1, **options: Any) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        request = {"topics": ["jobs"], "wait": "20s", "max_tasks": count - len(found), **options}
        tasks = grpcurl("Retrieve", request).reply["tasks"]
        assert tasks
        found += tasks
    return found


def settle(leased: Any) -> dict[str, Any]:
    return {"topic": "jobs", "id": leased["task"]["id"], "lease_token": leased["lease_token"]}


def test_the_services_are_listed_and_described(grpcurl: Grpcurl) -> None:
    listed = grpcurl.run(grpcurl._address, "list").stdout.split()
    assert {"ddq.v1.DelayQueueService", "ddq.v1.DelayQueueAdminService"} <= set(listed)
    described = grpcurl.run(grpcurl._address, "describe", "ddq.v1.EnqueueRequest").stdout
    assert ".ddq.v1.TaskSpec task = 2" in described


def test_a_task_goes_in_with_a_delay_and_comes_out_when_it_is_due(grpcurl: Grpcurl) -> None:
    result = enqueue(grpcurl, "a", b"\x00\xff\x80", delay="1.5s")
    assert (result["created"], result["state"]) == (True, "TASK_STATE_SCHEDULED")
    assert grpcurl("Retrieve", {"topics": ["jobs"]}).reply["tasks"] == []
    (leased,) = lease(grpcurl)
    assert base64.b64decode(leased["task"]["payload"]) == b"\x00\xff\x80"
    assert leased["receipt"]["store_time"] >= leased["task"]["due_time"]
    assert grpcurl("Ack", settle(leased)).code == "OK"
    assert grpcurl("Ack", settle(leased)).code == "OK", "a repeat gets the same answer"


def test_a_nack_brings_it_back_and_death_keeps_it(grpcurl: Grpcurl) -> None:
    enqueue(grpcurl, "a")
    (leased,) = lease(grpcurl)
    answer = grpcurl("Nack", settle(leased) | {"verdict": {"error": "no", "delay": "0s"}})
    assert answer.reply["result"]["state"] == "TASK_STATE_SCHEDULED"
    (again,) = lease(grpcurl)
    assert (again["task"]["attempt"], again["task"]["last_error"]) == (2, "no")
    answer = grpcurl("Nack", settle(again) | {"verdict": {"dead_letter": True}})
    assert answer.reply["result"]["state"] == "TASK_STATE_DEAD"
    answer = grpcurl("RedriveDeadTasks", {"topic": "jobs", "request_id": "r"})
    assert answer.reply["redriven"] == "1"
    assert lease(grpcurl)[0]["task"]["run"] == 2


def test_a_cancelled_task_never_comes(grpcurl: Grpcurl) -> None:
    enqueue(grpcurl, "a", delay="600s")
    assert grpcurl("Cancel", {"topic": "jobs", "id": "a"}).code == "OK"
    again = grpcurl("Cancel", {"topic": "jobs", "id": "a"})
    assert again.reply["result"]["already_cancelled"]
    got = grpcurl("GetTask", {"topic": "jobs", "id": "a"})
    assert got.reply["task"]["state"] == "TASK_STATE_CANCELLED"


def test_an_empty_topic_name(grpcurl: Grpcurl) -> None:
    answer = grpcurl("Enqueue", {"task": task("a")})
    assert (answer.code, answer.reason, answer.fields) == (
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        ("topic",),
    )


def test_a_payload_of_ten_megabytes_ends_in_the_transport(grpcurl: Grpcurl) -> None:
    answer = grpcurl("Enqueue", {"topic": "jobs", "task": task("a", bytes(10_000_000))})
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "")


def test_a_payload_over_the_bound(grpcurl: Grpcurl) -> None:
    answer = grpcurl("Enqueue", {"topic": "jobs", "task": task("a", bytes(2**20 + 1))})
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "PAYLOAD_TOO_LARGE")
    assert answer.fields == ("task.payload",)
    enqueue(grpcurl, "a", bytes(2**20))


def test_a_negative_delay(grpcurl: Grpcurl) -> None:
    answer = grpcurl("Enqueue", {"topic": "jobs", "task": task("a", delay="-1s")})
    assert (answer.code, answer.fields) == ("INVALID_ARGUMENT", ("task.delay",))


def test_unknown_enum_numbers(grpcurl: Grpcurl) -> None:
    answer = grpcurl("Enqueue", {"topic": "jobs", "task": task("a"), "on_conflict": 99})
    assert (answer.code, answer.fields) == ("INVALID_ARGUMENT", ("on_conflict",))
    answer = grpcurl("ListTasks", {"topic": "jobs", "state": 99, "view": 77})
    assert (answer.code, answer.fields) == ("INVALID_ARGUMENT", ("state", "view"))


def test_an_id_that_is_used_with_other_content(grpcurl: Grpcurl) -> None:
    enqueue(grpcurl, "a", b"one")
    assert not enqueue(grpcurl, "a", b"one")["created"]
    answer = grpcurl("Enqueue", {"topic": "jobs", "task": task("a", b"two")})
    assert (answer.code, answer.reason) == ("ALREADY_EXISTS", "TASK_ID_CONFLICT")


def test_an_old_token(grpcurl: Grpcurl) -> None:
    enqueue(grpcurl, "a")
    (old,) = lease(grpcurl)
    grpcurl("Nack", settle(old) | {"verdict": {"delay": "0s"}})
    (new,) = lease(grpcurl)
    answer = grpcurl("Ack", settle(old))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "LEASE_LOST")
    assert grpcurl("Ack", settle(new)).code == "OK"


def test_a_cancel_that_comes_too_late(grpcurl: Grpcurl) -> None:
    enqueue(grpcurl, "a")
    (leased,) = lease(grpcurl)
    answer = grpcurl("Cancel", {"topic": "jobs", "id": "a"})
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "TASK_LEASED")
    grpcurl("Ack", settle(leased))
    answer = grpcurl("Cancel", {"topic": "jobs", "id": "a"})
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "TASK_FINISHED")
    answer = grpcurl("Cancel", {"topic": "jobs", "id": "unknown"})
    assert (answer.code, answer.reason) == ("NOT_FOUND", "TASK_NOT_FOUND")
    answer = grpcurl("Cancel", {"topic": "unknown", "id": "a"})
    assert (answer.code, answer.reason) == ("NOT_FOUND", "TOPIC_NOT_FOUND")


def test_a_batch_with_one_bad_item(grpcurl: Grpcurl) -> None:
    items: list[dict[str, Any]]
    items = [{"task": task("a")}, {"task": task("b", delay="-1s")}, {"task": task("c")}]
    results = grpcurl("BatchEnqueue", {"topic": "jobs", "items": items}).reply["results"]
    assert [result["status"]["code"] for result in results] == [0, 3, 0]
    assert [bool(result["result"]) for result in results] == [True, False, True]
    leased = lease(grpcurl, 2)
    items = [settle(each) for each in leased]
    for item in items:
        item.pop("topic")
    items.insert(1, {"id": "unknown", "lease_token": TOKEN})
    results = grpcurl("BatchAck", {"topic": "jobs", "items": items}).reply["results"]
    assert [result["status"]["code"] for result in results] == [0, 5, 0]


def test_an_id_twice_in_a_batch(grpcurl: Grpcurl) -> None:
    items = [{"task": task("a")}, {"task": task("a")}]
    answer = grpcurl("BatchEnqueue", {"topic": "jobs", "items": items})
    assert (answer.code, answer.fields) == ("INVALID_ARGUMENT", ("items[1]",))


def test_tasks_that_exceed_max_bytes(grpcurl: Grpcurl) -> None:
    for task_id in "abc":
        enqueue(grpcurl, task_id, bytes(1_000), delay="0.1s")
    enqueue(grpcurl, "large", bytes(5_000), delay="0.2s")
    while grpcurl("GetTopicStats", {"topic": "jobs"}).reply["counts"]["ready"] != "4":
        pass
    request = {"topics": ["jobs"], "max_tasks": 10, "max_bytes": "2500"}
    sizes = [len(grpcurl("Retrieve", request).reply["tasks"]) for _ in range(4)]
    assert sizes == [2, 1, 1, 0]
    answer = grpcurl("Retrieve", request | {"max_bytes": str(3 * 2**20 + 1)})
    assert (answer.code, answer.fields) == ("INVALID_ARGUMENT", ("max_bytes",))
