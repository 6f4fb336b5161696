"""The access file: what is malformed is named, and nothing secret is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddq.access import Guard
from ddq.access.entries import AccessFileError, read_entries
from ddq.access.tokens import split_token
from ddq.config import Settings, StartupError
from tests.support.access import AccessFile


@pytest.fixture
def access(tmp_path: Path) -> AccessFile:
    return AccessFile(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "malformed"),
        ("[]", "version 1"),
        ('{"version": 2, "entries": []}', "version 1"),
        ('{"version": 1}', "lacks 'entries'"),
        ('{"version": 1, "entries": [{"id": "a"}]}', "needs either"),
        ('{"version": 1, "entries": [{"id": "A b"}]}', "invalid id"),
        ('{"version": 1, "entries": [{"id": "a", "until": 1}]}', "unknown field 'until'"),
        (
            '{"version": 1, "entries": [{"id": "a", "name": "n", "scopes": ["x"]}]}',
            "invalid scope 'x'",
        ),
        (
            '{"version": 1, "entries": [{"id": "a", "certificate": "b"}]}',
            "invalid certificate 'b'",
        ),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "access.json"
    path.write_text(content)
    with pytest.raises(AccessFileError, match=words):
        read_entries(path)
    with pytest.raises(StartupError, match=words):
        Guard.of(Settings(access_file=str(path)))


def test_a_file_that_everyone_can_write_is_refused(access: AccessFile) -> None:
    access.path.chmod(0o666)
    with pytest.raises(AccessFileError, match="written by everyone"):
        read_entries(access.path)


def test_the_file_has_no_secret_and_only_its_owner_can_read_it(access: AccessFile) -> None:
    secret = split_token(access.token("*:all"))
    assert secret is not None
    assert secret[1] not in access.path.read_text()
    assert access.path.stat().st_mode & 0o777 == 0o600
    access.path.chmod(0o640)
    access.token("*:all")
    assert access.path.stat().st_mode & 0o777 == 0o640
