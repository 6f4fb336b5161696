"""Generate `ddq/v1` from `proto/ddq/v1`: messages, gRPC stubs, and the types of both.

The result is checked in, so that a user needs no compiler and a reviewer sees what changes.
`--check` writes nothing and fails when the files in the tree are not what the protos give.
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PACKAGE = "ddq/v1"

INIT = '"""The generated API: messages and stubs of `proto/ddq/v1`. Never edited by hand."""\n'


def include_paths() -> list[str]:
    """Our protos, the copy of google/rpc beside them, and the compiler's own google/protobuf."""
    return [f"-I{PROTO}", f"-I{PROTO / 'third_party'}", f"-I{files('grpc_tools') / '_proto'}"]


def plugin(name: str) -> Path:
    return Path(sys.executable).parent / name


def sources() -> list[str]:
    return sorted(str(path.relative_to(PROTO)) for path in (PROTO / PACKAGE).glob("*.proto"))


def generate(target: Path) -> None:
    protos = sources()
    if not protos:
        sys.exit(f"gen: no protos in proto/{PACKAGE}: nothing to generate")
    status = protoc.main(
        [
            "protoc",
            *include_paths(),
            # By path, because the environment's programs are on the PATH only when it is active.
            f"--plugin=protoc-gen-mypy={plugin('protoc-gen-mypy')}",
            f"--plugin=protoc-gen-mypy_grpc={plugin('protoc-gen-mypy_grpc')}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *protos,
        ]
    )
    if status != 0:
        sys.exit("gen: the compiler refused the protos; its message is above")
    # A proto without a service still gets a `_pb2_grpc.py` that holds only a version check.
    for path in sorted((target / PACKAGE).glob("*_pb2_grpc.py")):
        if "class " not in path.read_text():
            path.unlink()
            path.with_suffix(".pyi").unlink(missing_ok=True)
    (target / PACKAGE / "__init__.py").write_text(INIT)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.py*")) if path.is_file()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail on a difference, write nothing")
    check: bool = parser.parse_args().check

    here = ROOT / PACKAGE
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted, have = contents(Path(scratch) / PACKAGE), contents(here)
    stale = sorted(n for n in wanted.keys() | have.keys() if wanted.get(n) != have.get(n))
    if check:
        if stale:
            print(f"gen: {PACKAGE} is not what the protos give ({', '.join(stale)}); run: make gen")
        return 1 if stale else 0
    here.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (here / name).write_bytes(wanted[name])
        else:
            (here / name).unlink()
    print(f"gen: {PACKAGE}: {len(wanted)} files, {len(stale)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
