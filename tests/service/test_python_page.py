"""The examples of docs/PYTHON.md are run as they stand, gunicorn and Celery by their hooks."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from ddq.client import Client, TaskState
from tests.support.program import line_of, program, rest_of
from tests.support.server import RunningServer
from tools.repo import ROOT

PAGE = (ROOT / "docs" / "PYTHON.md").read_text()
ADDRESS = "127.0.0.1:50051"


def example(name: str, server: RunningServer) -> str:
    found = re.findall(rf"<!-- tested: {name} -->\n```python\n(.*?)```\n", PAGE, flags=re.DOTALL)
    assert len(found) == 1, name
    return str(found[0]).replace(ADDRESS, server.address)


FORKS = """
import os, sys
sys.path.insert(0, sys.argv[1])
{prepare}
child = os.fork()
if child == 0:
    {in_child}
    from app import client
    print("child:", client().enqueue("mail", b"x", task_id="child", timeout_s=10).id)
    # As gunicorn's and Celery's children end: by the interpreter's own end.
    sys.exit(0)
print("status", os.waitpid(child, 0)[1])
{afterwards}
"""

PARENT_TOO = """
from app import client
print("parent:", client().enqueue("mail", b"x", task_id="parent").id)
client().close()
"""


async def test_the_plain_handler(server: RunningServer) -> None:
    text = example("plain handler", server)
    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"hello")
        async with program(text) as process:
            assert await line_of(process) == "sent hello"
            process.send_signal(signal.SIGTERM)
            assert await rest_of(process) == ""
        assert (await client.get_task("mail", task.id)).state is TaskState.SUCCEEDED


async def test_a_client_for_each_process_after_a_fork(
    server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(example("fork", server))
    text = FORKS.format(prepare="import app", in_child="pass", afterwards=PARENT_TOO)
    async with program(text, str(tmp_path)) as process:
        assert await rest_of(process) == "child: child\nstatus 0\nparent: parent\n"


async def test_gunicorn_with_preload(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(example("fork", server))
    (tmp_path / "conf.py").write_text(example("gunicorn", server))
    text = FORKS.format(
        prepare="import app, conf\nassert conf.preload_app",
        in_child="conf.post_fork(None, None)",
        afterwards="",
    )
    async with program(text, str(tmp_path)) as process:
        assert await rest_of(process) == "child: child\nstatus 0\n"


async def test_celery_with_prefork(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(example("fork", server))
    (tmp_path / "tasks.py").write_text(example("celery", server))
    (tmp_path / "celery").mkdir()
    (tmp_path / "celery" / "__init__.py").write_text("")
    (tmp_path / "celery" / "signals.py").write_text(
        "class worker_process_init:\n    connect = staticmethod(lambda hook: hook)\n"
    )
    text = FORKS.format(
        prepare="import tasks", in_child="tasks.connect(sender=None)", afterwards=""
    )
    async with program(text, str(tmp_path)) as process:
        assert await rest_of(process) == "child: child\nstatus 0\n"


async def test_spawn(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(example("spawn", server))
    text = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    async with program(text, str(tmp_path / "app.py")) as process:
        assert await rest_of(process) == ""
    async with Client(server.address) as client:
        ids = {task.id async for task in client.list_tasks("mail", TaskState.READY)}
    assert ids == {"parent", "child-0", "child-1"}


@pytest.mark.parametrize("kind", ["SyncClient", "Client"])
async def test_a_client_of_another_process_says_so_at_once(
    kind: str, server: RunningServer
) -> None:
    """It used to hang, and to ignore its time-out."""
    text = f"""
import asyncio, os, sys
from datetime import timedelta
from ddq.client import Client, SyncClient, WrongProcessError
from ddq.worker import Worker

async def main(client):
    return await client.enqueue("mail", b"x", task_id="a")

async def child(client):
    for call in (
        client.enqueue("mail", b"x", timeout_s=3600),
        client.connect(),
        Worker(client, "mail", print).run(),
    ):
        try:
            await call
        except WrongProcessError as error:
            print(error)
    await client.close()

if {kind!r} == "Client":
    runner = asyncio.Runner()
    async def make():
        client = Client(sys.argv[1])
        await client.enqueue("mail", b"x", task_id="a")
        return client
    client = runner.run(make())
else:
    client = SyncClient(sys.argv[1])
    client.enqueue("mail", b"x", task_id="a")
pid = os.fork()
if pid == 0:
    if {kind!r} == "Client":
        asyncio.run(child(client))
    else:
        for call in (lambda: client.enqueue("mail", b"x", timeout_s=3600), client.connect,
                     lambda: next(client.list_topics())):
            try:
                call()
            except WrongProcessError as error:
                print(error)
        client.close()
    try:
        SyncClient(sys.argv[1])
    except WrongProcessError as error:
        print("new:", error, flush=True)
    # As multiprocessing's children end: what gRPC would do at the interpreter's end is its own.
    os._exit(0)
print("status", os.waitpid(pid, 0)[1])
# The parent continues as if nothing had happened.
if {kind!r} == "Client":
    print(runner.run(main(client)).created)
    runner.run(client.close())
    runner.close()
else:
    print(client.enqueue("mail", b"x", task_id="a").created)
    client.close()
"""
    # gRPC notes each fork on stderr, and Python 3.12 and later warn of it.
    quiet = {"GRPC_VERBOSITY": "NONE", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    async with program(text, server.address, **quiet) as process:
        output = (await rest_of(process)).splitlines()
    assert len(output) == 6, output
    for line in output[:4]:
        assert "post_fork" in line
        assert "worker_process_init" in line
        assert "'spawn'" in line
    assert output[3].startswith("new: process ")
    assert output[4:] == ["status 0", "False"]
