"""A repeated deletion does not reach a topic of the same name that was made since."""

from __future__ import annotations

from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from tests.support.server import RunningServer


async def test_a_repeated_deletion_spares_the_next_topic_of_the_name(server: RunningServer) -> None:
    first = (await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="mail"))).topic
    request = admin_pb.DeleteTopicRequest(name="mail", uid=first.uid)
    assert (await server.admin.DeleteTopic(request)).done
    second = (await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="mail"))).topic
    assert (await server.admin.DeleteTopic(request)).done
    still = (await server.admin.GetTopic(admin_pb.GetTopicRequest(name="mail"))).topic
    assert still.uid == second.uid != first.uid
