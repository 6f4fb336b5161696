"""The flags for TLS and tokens, on both sides."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, Cli, spawn
from tests.support.certificates import authority, server_pair
from tools.repo import ROOT


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


def test_a_token_is_made_used_listed_and_revoked(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, secret = tmp_path / "access.json", tmp_path / "token"
    monkeypatch.setenv("DDQ_ACCESS_FILE", str(file))
    cli.ok("token", "create", "billing", "--scope", "mail:produce", "--out", str(secret))
    made = cli.ok("token", "create", "worker", "-s", "mail:consume", "-s", "x:read", "--json")
    worker = made.documents[0]
    assert worker["scopes"] == ["mail:consume", "x:read"]
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_text().strip() not in file.read_text()

    process = spawn("dev", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    try:
        assert process.stdout is not None
        address = next(
            line.split()[1].decode() for line in process.stdout if b"address" in line.split()
        )
        monkeypatch.setenv("DDQ_ADDRESS", address)
        refused = cli("enqueue", "mail", "hello")
        assert (refused.status, "--token-file" in refused.err) == (8, True), refused
        cli.ok("enqueue", "mail", "hello", "--token-file", str(secret))
        denied = cli("work", "mail", "--count", "1", "--token-file", str(secret))
        assert (denied.status, "needs the scope mail:consume" in denied.err) == (8, True), denied
        monkeypatch.setenv("DDQ_TOKEN", worker["token"])
        assert cli.ok("work", "mail", "--raw", "--count", "1").out == "hello"

        listed = cli.ok("token", "list").out
        assert all(each in listed for each in ("billing", "worker", "mail:produce", worker["id"]))
        assert worker["token"] not in listed
        cli.ok("token", "revoke", "billing", worker["id"])
        assert cli.ok("token", "list", "--json").documents == []
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert worker["token"] not in err.decode()
    assert secret.read_text().strip() not in err.decode()


def test_the_commands_of_the_operations_page(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They print what the page says, but for ids and times."""
    page = (ROOT / "docs/OPERATIONS.md").read_text()
    (example,) = re.findall(r"<!-- tested: shell -->\n```console\n(.*?)```\n", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    count = 0
    for part in re.split(r"^\$ ddq ", example, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        assert normal(cli.ok(*shlex.split(command)).out) == normal(output)
        count += 1
    assert count == 5


def normal(text: str) -> list[str]:
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "<time>", text)
    text = re.sub(r"^[a-z2-7]{8}\b", "<id>", text, flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["create", "x", "--scope", "mail:reed"], 2, "unknown action 'reed'"),
        (["create", "x"], 2, "--scope"),
        (["create", "x", "--scope", "a:read", "--certificate", "worker"], 2, "KIND:VALUE"),
        (["create", "x", "--scope", "a:read", "--certificate", "dns:a", "--out", "t"], 2, "--out"),
        (["list"], 2, "does not exist"),
        (["revoke", "unknown"], 2, "does not exist"),
    ],
)
def test_a_refused_token_command_prints_one_line(
    tmp_path: Path, cli: Cli, arguments: list[str], status: int, says: str
) -> None:
    file = tmp_path / "access.json"
    ran = cli("token", *arguments, "--access-file", str(file))
    assert (ran.status, says in ran.err) == (status, True), ran
    assert not file.exists()


def test_an_unknown_token_is_not_revoked_and_a_file_is_not_overwritten(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDQ_ACCESS_FILE", str(tmp_path / "access.json"))
    cli.ok("token", "create", "a", "--scope", "*:all")
    before = (tmp_path / "access.json").read_bytes()
    refused = cli("token", "revoke", "a", "b")
    assert (refused.status, "'b'; nothing was changed" in refused.err) == (3, True), refused
    (tmp_path / "token").touch()
    refused = cli("token", "create", "b", "--scope", "*:all", "--out", str(tmp_path / "token"))
    assert (refused.status, "exists" in refused.err) == (2, True), refused
    assert (tmp_path / "access.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
