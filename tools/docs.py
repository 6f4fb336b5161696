"""Write the generated parts of the documents: `make gen`, and `--check` in `make lint-documents`.

A table that repeats what the code says would be wrong a month later. So those tables are made from
the code, between `<!-- generated: name -->` and `<!-- end -->`; all other lines are left alone.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from hypothesis import settings as hypothesis_settings

from chaos.experiments.matrix import table as matrix_table
from chaos.experiments.matrix.table import Cell
from chaos.experiments.mutants.registry import MUTATIONS
from ddq import errors
from ddq.access import RULES
from ddq.access.rules import Topics
from ddq.access.scopes import ACTION_DOCS
from ddq.config import DEFAULTS, LIMITS, ProcessSettings, Settings, variable
from ddq.metrics import Metrics, ParentMetrics, specs
from ddq.store.scripts import Script, default_scripts
from models.promises import PROMISES
from tests import profiles
from tests.bugs.registry import BUGS
from tools.alerts import ALERTS, rule_tests, rules
from tools.dashboard import dashboard
from tools.gen import include_paths, sources
from tools.repo import ROOT, Repo, ToolError

PAGES = (
    "docs/GUARANTEES.md",
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/API.md",
    "docs/OPERATIONS.md",
    "docs/SECURITY.md",
    "docs/VERIFICATION.md",
)
_PART = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(?P<end><!-- end -->\n)",
    flags=re.DOTALL,
)
_BEGIN = "<!-- generated:"


# --- tables ---------------------------------------------------------------------------------------


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a bar in a cell does not end it."""
    lines = [list(header)]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def sentence(text: str) -> str:
    """A description as it stands in a cell: one line, with a capital and a full stop."""
    text = " ".join(text.split()).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def code(text: object) -> str:
    return f"`{text}`"


def amount(name: str, value: Any) -> str:
    """A value with the unit that its name ends in, as people say it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return code(value) if value else "none"
    if name.endswith("_ms"):
        return f"{value:,} ms{_in_larger_unit(value, _TIMES)}"
    if name.endswith("_bytes"):
        return f"{value:,}{_in_larger_unit(value, _SIZES)}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


_TIMES = (
    (365 * 86_400_000, "years"),
    (86_400_000, "days"),
    (3_600_000, "h"),
    (60_000, "min"),
    (1_000, "s"),
)
_SIZES = ((1 << 20, "MiB"), (1 << 10, "KiB"))


def _in_larger_unit(value: float, units: tuple[tuple[int, str], ...]) -> str:
    for size, unit in units:
        if value >= size and value % size == 0:
            count = value // size
            return (
                f" ({count:g} {unit.removesuffix('s') if count == 1 and len(unit) > 2 else unit})"
            )
    return ""


# --- the parts ------------------------------------------------------------------------------------


def promises() -> str:
    """models/promises.py."""
    return table(
        ("id", "name", "promise", "in FAST"),
        (
            (promise.id, f"**{promise.name}**", promise.sentence, promise.in_fast.value)
            for promise in PROMISES
        ),
    )


def scripts() -> str:
    """The headers of ddq/store/lua."""
    return table(
        ("script", "does", "answers", "in a full store"),
        (
            (
                f"[{code(script.name)}](../ddq/store/lua/{script.name}.lua)",
                sentence(script.purpose),
                " ".join(code(status) for status in statuses(script)) or "-",
                "runs" if script.allow_oom else "is refused",
            )
            for script in default_scripts().values()
        ),
    )


def statuses(script: Script) -> list[str]:
    """The statuses that a script's header promises, each once."""
    found: dict[str, None] = {}
    for line in script.returns:
        if match := re.match(r"([A-Z][A-Z_]+(?:, [A-Z][A-Z_]+)*)(?:\s|$)", line):
            found.update(dict.fromkeys(match[1].split(", ")))
    return list(found)


def rpcs() -> str:
    """The comments of proto/ddq/v1."""
    parts = []
    for proto in _described_protos():
        comments = {
            tuple(location.path): " ".join(location.leading_comments.split())
            for location in proto.source_code_info.location
        }
        for number, service in enumerate(proto.service):
            rows: list[tuple[str, str]] = []
            for at, method in enumerate(service.method):
                comment = comments.get((6, number, 2, at), "")
                # A batch that has nothing to add is described by its single form.
                if not comment and rows and method.name == f"Batch{rows[-1][0]}":
                    rows[-1] = (f"{rows[-1][0]}, {method.name}", rows[-1][1])
                else:
                    rows.append((method.name, comment))
            cells = ((", ".join(map(code, name.split(", "))), said) for name, said in rows)
            parts.append(f"`{proto.package}.{service.name}`\n\n{table(('RPC', ''), cells)}")
    return "\n".join(parts)


def _described_protos() -> list[FileDescriptorProto]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "protos.binpb"
        options = ["--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *include_paths(), *options, *sources()]) != 0:
            raise ToolError("the compiler refused the protos; its message is above")
        described = FileDescriptorSet.FromString(out.read_bytes())
    # What producers and workers call comes first.
    return sorted(described.file, key=lambda proto: "admin" in proto.name)


def limits() -> str:
    """ddq.config.LIMITS."""
    return _values(LIMITS)


def defaults() -> str:
    """ddq.config.DEFAULTS."""
    return _values(DEFAULTS)


def _values(values: Any) -> str:
    rows = (
        (
            code(spec.name),
            amount(spec.name, getattr(values, spec.name)),
            sentence(spec.metadata["doc"]),
        )
        for spec in fields(values)
    )
    return table(("name", "value", ""), rows)


def scopes() -> str:
    """ddq/access: the actions, and the RPCs that need each."""
    needed: dict[str, list[str]] = {action: [] for action in ACTION_DOCS}
    for method, rule in RULES.items():
        if rule.action is not None:
            every = " (with `*`)" if rule.topics is Topics.EVERY else ""
            needed[rule.action].append(code(method.rpartition("/")[2]) + every)
    return table(
        ("action", "allows to", "RPCs"),
        ((code(action), doc, ", ".join(needed[action])) for action, doc in ACTION_DOCS.items()),
    )


def settings() -> str:
    """ddq.config.Settings."""
    return _settings(Settings)


def process_settings() -> str:
    """ddq.config.ProcessSettings."""
    return _settings(ProcessSettings)


def _settings(kind: type[Settings | ProcessSettings]) -> str:
    hints = get_type_hints(kind)

    def flag(name: str) -> str:
        dashed = name.removeprefix("node_").replace("_", "-")
        # A switch of `ddq node`, and one for access, is off unless it is given.
        one_way = name.startswith("node_") or name in {"tls", "plain_token"}
        both = hints[name] in {bool, bool | None} and not one_way
        return f"`--{dashed}`, `--no-{dashed}`" if both else f"`--{dashed}`"

    def allowed(name: str, about: Mapping[str, Any]) -> str:
        if about["choices"]:
            return ", ".join(map(code, about["choices"]))
        if about["least"] is not None:
            return f"{amount(name, about['least'])} to {amount(name, about['most'])}"
        return "-"

    rows = (
        (
            flag(spec.name),
            code(variable(spec.name)),
            "none" if spec.default is None else amount(spec.name, spec.default),
            allowed(spec.name, spec.metadata),
            sentence(spec.metadata["doc"]),
        )
        for spec in fields(kind)
    )
    return table(("flag", "environment", "default", "allowed", ""), rows)


def error_classes() -> Iterator[type[errors.DdqError]]:
    """The errors that a client may see: the leaves of the tree, and INVALID_ARGUMENT itself."""
    # Those defined elsewhere, such as a store that cannot start, are not part of the API.
    public = [cls for cls in errors.all_errors() if cls.__module__ == errors.__name__]
    parents = {cls.__bases__[0] for cls in public}
    yield from (cls for cls in public if cls is errors.InvalidArgument or cls not in parents)


def error_table() -> str:
    """ddq/errors.py."""
    yes = {True: "yes", False: "no"}
    client_only = {errors.OutcomeUnknown, errors.TransportError}
    rows = (
        (
            code(cls.reason),
            "client only" if cls in client_only else code(cls.code.name),
            code(cls.__name__),
            yes[cls.definite],
            yes[cls.repeatable],
            " ".join((cls.__doc__ or "").split("\n\n")[0].split()),
        )
        for cls in error_classes()
    )
    return table(("reason", "code", "Python", "definite", "repeatable", ""), rows)


def metrics() -> str:
    """ddq/metrics.py."""
    rows = (
        (
            code(spec.name),
            get_type_hints(kind)[name].__name__.lower(),
            ", ".join(map(code, spec.labels)) or "-",
            spec.process,
            spec.several if spec.process != "parent" else "-",
            sentence(spec.doc),
        )
        for kind in (Metrics, ParentMetrics)
        for name, spec in specs(kind).items()
    )
    return table(("metric", "type", "labels", "of", "of several", ""), rows)


def alerts() -> str:
    """tools/alerts.py."""
    rows = (
        (
            code(alert.name),
            alert.severity,
            code(alert.when) + (f" for {alert.hold_minutes} min" if alert.hold_minutes else ""),
            sentence(alert.means),
            sentence(alert.do),
        )
        for alert in ALERTS
    )
    return table(("alert", "severity", "when", "means", "do"), rows)


def test_profiles() -> str:
    """tests/profiles.py."""
    assert profiles.__file__
    rows = []
    for name in ("dev", "ci", "nightly"):
        profile = hypothesis_settings.get_profile(name)
        drawn = "the same in every run" if profile.derandomize else "new in every run"
        rows.append(
            (code(name), f"{profile.max_examples:,}", f"{profile.stateful_step_count}", drawn)
        )
    return table(("profile", "examples", "steps an example", "drawn"), rows)


def seeded_mutations() -> str:
    """tests/bugs/registry.py and chaos/experiments/mutants/registry.py."""
    rows = []
    for bug in BUGS:
        promised = sorted(bug.breaks, key=lambda promise: int(promise[1:]))
        levels = [search.value for search in bug.searches]
        rows.append((sentence(bug.name), " ".join(promised), ", ".join(levels)))
    for each in MUTATIONS.values():
        promised = sorted(each.breaks, key=lambda promise: int(promise[1:]))
        found_in = f"4: `{each.scenario}`, {each.mode.name}"
        rows.append((f"{sentence(each.doc)} (`{each.name}`)", " ".join(promised), found_in))
    return table(("mistake", "promises that it may be caught by", "tested at level"), rows)


def guarantees() -> str:
    """models/promises.py, by durability."""
    always = "kept"
    return table(
        ("promise", "FAST", "QUORUM", "ALL"),
        ((f"{p.id} {p.name}", p.in_fast.value, always, always) for p in PROMISES),
    ) + (
        "\n\n*kept*: across a failover too, under every fault that the mode claims "
        "([below](#what-a-mode-waits-for))."
    )


MATRIX = ROOT / "docs" / "durability-matrix.json"
"""The matrix.json of `make durability-matrix`, kept with the page that shows it."""


def _measured() -> list[Cell]:
    return msgspec.json.decode(MATRIX.read_bytes(), type=list[Cell])


def durability_matrix() -> str:
    """docs/durability-matrix.json: every row."""
    return matrix_table.markdown(_measured(), "make durability-matrix").strip()


def durability_matrix_in_short() -> str:
    """docs/durability-matrix.json: the rows that each mode kept and claims, and what it lost."""
    rows = []
    for mode, rule in matrix_table.COLUMNS:
        cells = [c for c in _measured() if (c.mode, c.rule) == (mode.value, rule) and c.steps]
        claimed = [cell for cell in cells if cell.claimed]
        lossy = [cell for cell in cells if cell.lost]
        lost, acked = sum(cell.lost for cell in cells), sum(cell.acked for cell in cells)
        kept = f"{sum(c.kept for c in claimed)} of {len(claimed)}" if claimed else "claims none"
        losses = f"{lost:,} of {acked:,}, under {len(lossy)} of {len(cells)} faults"
        rows.append((matrix_table.heading(mode, rule), kept, losses))
    return table(("mode", "claimed faults that it kept", "acknowledged tasks lost in all"), rows)


PARTS: Mapping[str, Callable[[], str]] = {
    "promises": promises,
    "guarantees": guarantees,
    "durability-matrix": durability_matrix,
    "durability-matrix-in-short": durability_matrix_in_short,
    "scripts": scripts,
    "rpcs": rpcs,
    "limits": limits,
    "defaults": defaults,
    "settings": settings,
    "process-settings": process_settings,
    "metrics": metrics,
    "alerts": alerts,
    "errors": error_table,
    "scopes": scopes,
    "test-profiles": test_profiles,
    "seeded-mutations": seeded_mutations,
}


FILES: Mapping[str, Callable[[], str]] = {
    "deploy/prometheus/ddq.rules.yaml": rules,
    "deploy/prometheus/ddq.rules.test.yaml": rule_tests,
    "deploy/grafana/ddq.json": dashboard,
}
"""What is generated as a whole."""


# --- the pages ------------------------------------------------------------------------------------


def names_in(text: str) -> list[str]:
    """The generated parts of a page, in order."""
    return [found["name"] for found in _PART.finditer(text)]


def render(page: str, text: str, parts: Mapping[str, Callable[[], str]] = PARTS) -> str:
    """The page with its generated parts as the code gives them now.

    Raises:
        ToolError: a part is not known, or has no end.
    """
    if text.count(_BEGIN) != len(names_in(text)):
        raise ToolError(f"{page}: a generated part is not closed: add the line <!-- end -->")

    def fill(found: re.Match[str]) -> str:
        if found["name"] not in parts:
            raise ToolError(
                f"{page}: nothing generates {found['name']!r}; known are {', '.join(parts)}"
            )
        return f"{found['begin']}\n{parts[found['name']]()}\n{found['end']}"

    return _PART.sub(fill, text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail on a difference, write nothing")
    check: bool = parser.parse_args(arguments).check
    repo = Repo()
    stale, used = [], set()
    try:
        for page in PAGES:
            text = repo.read(page)
            used.update(names_in(text))
            if (wanted := render(page, text)) != text:
                stale.append(page)
                if not check:
                    (ROOT / page).write_text(wanted, encoding="utf-8")
        for page, made in FILES.items():
            path = ROOT / page
            if not path.exists() or path.read_text(encoding="utf-8") != made():
                stale.append(page)
                if not check:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(made(), encoding="utf-8")
        if unused := sorted(PARTS.keys() - used):
            raise ToolError(
                f"no page shows the generated part {', '.join(unused)}: show or drop it"
            )
    except ToolError as error:
        print(f"docs: {error}", file=sys.stderr)
        return 1
    if check and stale:
        print(
            f"docs: {', '.join(stale)} is not what the code gives; run: make gen", file=sys.stderr
        )
        return 1
    if not check:
        print(f"docs: {len(PAGES) + len(FILES)} pages, {len(stale)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
