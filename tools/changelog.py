"""Write a version's section of CHANGELOG.md: `make changelog VERSION=v0.2.0`.

git-chglog turns the commits since the last release into Keep a Changelog's sections (.chglog/).
This puts them between two markers under the version's heading and leaves everything else alone:

    ## [0.2.0] - 2026-12-01

    What users should know, written by hand. It survives every run.

    <!-- commits -->
    ### Added
    - ...
    <!-- /commits -->

The first run for a version moves what stands under `[Unreleased]` below the new heading, as the
start of that prose. The date is the last commit's, and once written it stays; so the same history
and the same file give the same bytes.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tools.documents import CHANGELOG, Release, parse_changelog
from tools.repo import ROOT, Repo, ToolError, Version

BEGIN, END = "<!-- commits -->", "<!-- /commits -->"
UNRELEASED = "Unreleased"


def splice(text: str, version: Version, commits: str, date: str) -> str:
    """The changelog with `commits` as the generated part of `version`."""
    introduction, releases = parse_changelog(text)
    if not releases or releases[0].title != UNRELEASED:
        releases.insert(0, Release(UNRELEASED, None, ""))
    for place, release in enumerate(releases):
        if release.version == version:
            kept = release.date if release.has_valid_date() else date
            body = with_commits(release.body, commits, version)
            releases[place] = Release(release.title, kept, body)
            break
    else:
        body = with_commits(releases[0].body, commits, version)
        releases[0] = Release(UNRELEASED, None, "")
        releases.insert(1, Release(str(version), date, body))
    parts = [introduction.rstrip()] + [
        f"{release.heading}\n\n{release.body.strip()}".rstrip() for release in releases
    ]
    return "\n\n".join(parts) + "\n"


def with_commits(body: str, commits: str, version: Version) -> str:
    if (body.count(BEGIN), body.count(END)) not in {(0, 0), (1, 1)}:
        raise ToolError(
            f"{CHANGELOG}: under [{version}] the markers {BEGIN} and {END} must stand once each; "
            "put them around the part that is made from the commits"
        )
    block = f"{BEGIN}\n{commits.strip()}\n{END}"
    if BEGIN not in body:
        return f"{body.strip()}\n\n{block}".lstrip()
    before, rest = body.split(BEGIN)
    if END not in rest:
        raise ToolError(
            f"{CHANGELOG}: under [{version}] {END} stands before {BEGIN}; put them in order"
        )
    return f"{before}{block}{rest.split(END)[1]}"


def commits_of(repo: Repo, version: Version, chglog: str) -> str:
    """What git-chglog makes of a version's commits: those of its tag, or those up to HEAD."""
    released = repo.released()
    if version in released:
        arguments = [version.tag]
    elif released and version < released[-1]:
        raise ToolError(
            f"{version.tag} is older than the last release {released[-1].tag}; give a newer VERSION"
        )
    else:
        arguments = ["--next-tag", version.tag, version.tag]
    done = subprocess.run(
        [chglog, "--config", ".chglog/config.yml", *arguments],
        cwd=repo.root,
        # git-chglog prints dates in local time; the same commit must not have two of them.
        env={**os.environ, "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no message").splitlines()[-1].strip()
        raise ToolError(f"git-chglog failed: {reason}")
    heading, _, body = done.stdout.strip().partition("\n")
    if not heading.startswith(f"## [{version}]"):
        raise ToolError(
            f"git-chglog answered {heading!r} instead of the section for {version}; "
            "see .chglog/CHANGELOG.tpl.md"
        )
    return body.strip()


def release_date(repo: Repo, version: Version) -> str:
    revision = version.tag if version in repo.released() else "HEAD"
    return repo.git("log", "-1", "--format=%cs", revision).strip()


def find_chglog() -> str:
    """The pinned git-chglog, built if need be."""
    done = subprocess.run(
        [str(ROOT / "tools" / "gotool.sh"), "git-chglog"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ToolError("git-chglog could not be built; the reason is above")
    return done.stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="changelog", description=__doc__.splitlines()[0])
    parser.add_argument("version", help="the version, such as v0.2.0")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument("--preview", action="store_true", help="print the generated part only")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        return run(Repo(options.root), options)
    except ToolError as error:
        print(f"changelog: {error}", file=sys.stderr)
        return 1


def run(repo: Repo, options: argparse.Namespace) -> int:
    version = Version.parse_tag(options.version)
    if version is None:
        raise ToolError(
            f"invalid version {options.version!r}; expected vX.Y.Z, such as VERSION=v0.2.0"
        )
    generated = commits_of(repo, version, find_chglog())
    if options.preview:
        print(generated)
        return 0
    before = repo.read(CHANGELOG)
    after = splice(before, version, generated, release_date(repo, version))
    if options.check:
        if after != before:
            raise ToolError(
                f"{CHANGELOG} is not what the commits give; run: make changelog "
                f"VERSION={version.tag}"
            )
        return 0
    (repo.root / CHANGELOG).write_text(after, encoding="utf-8")
    print(f"changelog: {CHANGELOG} has [{version}]" + (" (unchanged)" if after == before else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
