"""ddq demo."""

from __future__ import annotations

import asyncio
import signal

import typer

from ddq.cli.exits import CommandError, ExitCode, guarded
from ddq.config import StartupError


def demo() -> None:
    """Watch producers, workers, retries, cancels and a killed worker; ends by itself.

    Starts a server of its own on a free port, with a store in a temporary folder, and leaves
    nothing behind. The exit status is 0 if what the server counted agrees with what was planned
    and with what the workers saw.
    """
    # Late, so that commands which only talk to a server do not load one.
    from ddq.demo.run import DemoError, run_demo  # noqa: PLC0415

    async def play() -> bool:
        task = asyncio.current_task()
        assert task is not None
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            return await run_demo()
        except asyncio.CancelledError:
            if not interrupted:
                raise
            raise KeyboardInterrupt from None
        except DemoError as error:
            raise CommandError(str(error)) from None
        except StartupError as error:
            raise CommandError(str(error), ExitCode.UNAVAILABLE) from None

    if not guarded(play()):
        raise typer.Exit(ExitCode.FAILED)
