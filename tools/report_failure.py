"""Open an issue about a run that failed, or add to the one that is open already.

For scheduled runs. Failures of several nights are comments on one issue, which are more likely to
be read than thirty issues. Standard library and `gh` only: the job that calls this must work when
the others did not.
"""

import argparse
import json
import os
import subprocess
import sys


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="report-failure", description=__doc__)
    parser.add_argument("--title", required=True, help="the issue's title, the same every night")
    parser.add_argument("--seed", default="", help="what to run again with")
    parser.add_argument("--again", default="make nightly", help="the command that takes the seed")
    options = parser.parse_args(arguments)
    text = body(dict(os.environ), options.seed, options.again)
    try:
        number = open_issue(options.title)
        if number is None:
            gh("issue", "create", "--title", options.title, "--body", text)
        else:
            gh("issue", "comment", str(number), "--body", text)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        # The failure itself must not get lost with the report of it.
        print(f"report-failure: gh failed ({error}); what it should have said:\n{text}")
        return 1
    print(f"report-failure: {'opened an issue' if number is None else f'added to issue {number}'}")
    return 0


def body(environment: dict[str, str], seed: str, again: str = "make nightly") -> str:
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}"
    lines = [
        f"Run: {run.format_map(_Blank(environment))}",
        f"Commit: {environment.get('GITHUB_SHA', 'unknown')}",
    ]
    if seed:
        lines.append(f"Again, on that commit: `{again} SEED={seed}`")
    return "\n".join(lines)


def open_issue(title: str) -> int | None:
    """The number of the open issue with exactly this title; the lowest if there are several."""
    answer = gh("issue", "list", "--state", "open", "--limit", "1000", "--json", "number,title")
    return min((i["number"] for i in json.loads(answer) if i["title"] == title), default=None)


def gh(*arguments: str) -> str:
    command = ["gh", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


class _Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


if __name__ == "__main__":
    sys.exit(main())
