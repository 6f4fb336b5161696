"""Print the notes of a release: its section of CHANGELOG.md, and the decisions that it brings.

The decisions are the ADRs that were added or changed since the release before. `--base-url` makes
their links absolute, for a page outside the repository.
"""

import argparse
import re
import sys
from pathlib import Path

from tools.changelog import BEGIN, END
from tools.documents import ADR_FOLDER, CHANGELOG, Adr, adrs, parse_changelog
from tools.repo import ROOT, Repo, ToolError, Version


def notes(repo: Repo, version: Version, base_url: str) -> str:
    _, releases = parse_changelog(repo.read(CHANGELOG))
    entry = next((release for release in releases if release.version == version), None)
    if entry is None:
        raise ToolError(
            f"{CHANGELOG} has no section [{version}]: run make changelog VERSION={version.tag}"
        )
    body = entry.body.replace(f"{BEGIN}\n", "").replace(f"{END}\n", "")
    if base_url:
        body = re.sub(r"\]\((?![a-z]+:|#)", f"]({base_url.rstrip('/')}/", body)
    lines = [body.strip()]
    if decisions := changed_adrs(repo, version):
        lines += ["", "### Decisions", ""]
        lines += [f"- [{title(adr)}]({link(base_url, adr)})" for adr in decisions]
    return "\n".join(lines).strip() + "\n"


def changed_adrs(repo: Repo, version: Version) -> list[Adr]:
    released = repo.released()
    to = version.tag if version in released else "HEAD"
    older = [release for release in released if release < version]
    if not older:
        return adrs(repo)
    changed = repo.git("diff", "--name-only", f"{older[-1].tag}..{to}", "--", ADR_FOLDER).split()
    return [adr for adr in adrs(repo) if str(adr.path) in changed]


def title(adr: Adr) -> str:
    found = re.search(r"^# (.+)$", adr.text, flags=re.MULTILINE)
    return found[1] if found else f"ADR {adr.number}"


def link(base_url: str, adr: Adr) -> str:
    return f"{base_url.rstrip('/')}/{adr.path}" if base_url else str(adr.path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="release-notes", description=__doc__.splitlines()[0])
    parser.add_argument("version", help="the version, such as v0.2.0")
    parser.add_argument("--base-url", default="", help="put before every link into the repository")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        version = Version.parse_tag(options.version)
        if version is None:
            raise ToolError(f"invalid version {options.version!r}; expected vX.Y.Z, such as v0.2.0")
        sys.stdout.write(notes(Repo(options.root), version, options.base_url))
    except ToolError as error:
        print(f"release-notes: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
