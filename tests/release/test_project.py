"""The project follows its own rules."""

from __future__ import annotations

import re
import subprocess

from tools import release_readiness
from tools.documents import CHANGELOG, parse_changelog
from tools.repo import ROOT, Repo, Version

# The user who installs chooses where packages and images come from: a mirror must work.
HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "proxy.golang" + ".org")


def test_its_documents_pass_the_gate() -> None:
    assert release_readiness.problems(Repo(), None) == []


def test_its_version_is_one() -> None:
    assert Version.parse(Repo().package_version()) is not None


def test_its_changelog_is_keep_a_changelog() -> None:
    introduction, releases = parse_changelog((ROOT / CHANGELOG).read_text())
    assert introduction.startswith("# Changelog\n")
    assert releases[0].title == "Unreleased"
    for release in releases[1:]:
        assert release.version is not None, release.heading
        assert release.has_valid_date(), release.heading
        headings = re.findall(r"^### (.+)$", release.body, flags=re.MULTILINE)
        order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
        assert headings == [title for title in order if title in headings], release.heading


def test_it_names_no_package_registry() -> None:
    for name in Repo().git("ls-files", "-z").split("\0")[:-1]:
        page = ROOT / name
        content = page.read_bytes() if page.is_file() else b""
        assert [host for host in HOSTS if host.encode() in content] == [], name


def test_its_lock_has_a_hash_for_every_package() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    packages = re.findall(r"^[a-z0-9].*(?:\n[ ]+.*)*", lock, flags=re.MULTILINE)
    assert len(packages) > 30
    assert [p.split()[0] for p in packages if "--hash=sha256:" not in p] == []


def test_make_alone_lists_the_targets() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make ([a-z0-9-]+) +\S", done.stdout, flags=re.MULTILINE)
    for target in ("run", "demo", "test", "e2e", "fmt", "lint", "types", "gen"):
        assert target in listed
