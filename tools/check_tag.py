"""Check a tag before it is published: annotated, on main, and the version of the package.

A tag starts a release that cannot be taken back, so it is looked at once more where it starts.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.repo import ROOT, Repo, ToolError, Version


def problems(repo: Repo, tag: str) -> Iterator[str]:
    version = Version.parse_tag(tag)
    if version is None:
        yield f"invalid release tag {tag!r}; expected vX.Y.Z"
        return
    if not repo.exists(tag):
        yield f"there is no tag {tag} here: create it with git tag --annotate {tag}, or fetch it"
        return
    if repo.git("cat-file", "-t", tag).strip() != "tag":
        yield (
            f"{tag} is not annotated, so it has neither author nor date: delete it and use "
            f"git tag --annotate {tag}"
        )
    main = next((b for b in ("origin/main", "main") if repo.exists(b)), None)
    if main is None:
        yield "there is no branch main here: fetch it, a release is tagged on main"
    elif repo.git("rev-list", "--count", f"{main}..{tag}").strip() != "0":
        yield f"{tag} is not on main: merge the release branch to main and tag that commit"
    if repo.package_version() != str(version):
        yield (
            f"{tag} is on a commit whose package version is {repo.package_version()}: tag the "
            "commit that has the right one"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check-tag", description=__doc__)
    parser.add_argument("tag")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        found = list(problems(Repo(options.root), options.tag))
    except ToolError as error:
        found = [str(error)]
    for line in found:
        print(f"check-tag: {line}", file=sys.stderr)
    if not found:
        print(f"check-tag: {options.tag}: ready")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
