"""The flags for TLS and tokens, on both sides."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, Cli, spawn
from tests.support.certificates import authority, server_pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With server.pem, server.key, ca.pem, client.pem and client.key."""
    server_pair().write(tmp_path, "server")
    authority().write(tmp_path)
    authority().issue("worker-1").write(tmp_path, "client")
    return tmp_path


@pytest.fixture
def encrypted(folder: Path) -> Iterator[str]:
    """The address of `ddq dev` with TLS, which takes clients with a certificate only."""
    process = spawn(
        "dev", "--data", str(folder / "data"), "--listen", "127.0.0.1:0",
        "--tls-server-cert", str(folder / "server.pem"),
        "--tls-server-key", str(folder / "server.key"),
        "--tls-client-ca", str(folder / "ca.pem"),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            word, _, rest = line.decode().strip().partition("  ")
            if word == "address":
                yield rest
                break
        else:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read().decode())
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)


def test_flags_and_environment_lead_to_a_server_with_tls(
    encrypted: str, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (
        "--tls-ca", str(folder / "ca.pem"), "--tls-cert", str(folder / "client.pem"),
        "--tls-key", str(folder / "client.key"), "--address", encrypted,
    )  # fmt: skip
    cli.ok("enqueue", "mail", "hello", *flags)
    assert cli.ok("work", "mail", "--raw", "--count", "1", *flags).out == "hello"
    refused = cli("topics", "list", "--address", encrypted)
    assert (refused.status, "does it require TLS" in refused.err) == (5, True), refused

    monkeypatch.setenv("DDQ_ADDRESS", encrypted)
    monkeypatch.setenv("DDQ_TLS_CA", str(folder / "ca.pem"))
    monkeypatch.setenv("DDQ_TLS_CERT", str(folder / "client.pem"))
    monkeypatch.setenv("DDQ_TLS_KEY", str(folder / "client.key"))
    assert "mail" in cli.ok("topics", "list").out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["stats", "--tls-ca", "/nonexistent"], 2, "--tls-ca '/nonexistent' cannot be read"),
        (["stats", "--tls-key", "k"], 2, "--tls-key is given without --tls-cert"),
        (["stats", "--token-file", "/nonexistent"], 2, "cannot be read"),
        (["work", "mail", "--tls-ca", "/nonexistent"], 2, "--tls-ca"),
        (["enqueue", "mail", "x", "--tls-ca", "/nonexistent"], 2, "--tls-ca"),
        (["serve", "--store", "unix:///x", "--tls-server-cert", "/nonexistent"], 5, "No such file"),
        (["serve", "--store", "unix:///x", "--tls-server-key", "k"], 5, "without tls_server_cert"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(
    cli: Cli, arguments: list[str], status: int, says: str
) -> None:
    ran = cli(*arguments)
    assert ran.status == status
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_token_from_the_environment_is_not_sent_in_plain_text(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDQ_TOKEN", "very-secret")
    ran = cli("stats", "--address", "queue.example.org:50051")
    assert ran.status == 2
    assert "unencrypted" in ran.err
    assert "very-secret" not in ran.err + ran.out
