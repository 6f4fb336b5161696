#!/usr/bin/env bash
# Build one of the Go tools that tools/go/go.mod pins, and print where it is.
#
#   tools/gotool.sh actionlint        ->  .tools/bin/actionlint
#
# A module of our own instead of `go install PACKAGE@VERSION`, which pins only the tool itself: here
# go.sum holds the hash of everything below it too.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
name=${1:-}
bin=$root/.tools/bin

pattern="/cmd/$name\$"
package=$(sed -n 's/^[[:space:]]*\(github\.com[^ ]*\)$/\1/p' "$root/tools/go/go.mod" | grep -e "$pattern" || true)
if [ -z "$name" ] || [ -z "$package" ]; then
    echo "gotool: no tool named '$name'; tools/go/go.mod has: $(sed -n 's#^[[:space:]]*github\.com/.*/cmd/\([^ /]*\)$#\1#p' "$root/tools/go/go.mod" | tr '\n' ' ')" >&2
    exit 1
fi

target=$bin/$name
if [ -x "$target" ] && [ ! "$root/tools/go/go.mod" -nt "$target" ] && [ ! "$root/tools/go/go.sum" -nt "$target" ]; then
    echo "$target"
    exit 0
fi
if ! command -v go >/dev/null; then
    echo "gotool: $name needs Go 1.25 or newer on the PATH; install Go and run the same command again" >&2
    exit 1
fi

mkdir -p "$bin"
# Two at once (parallel tests, two targets of make) build it once; the second finds it done. The move
# is last, so that no process runs an incomplete program.
exec 9>"$bin/.$name.lock"
flock 9
if [ ! -x "$target" ] || [ "$root/tools/go/go.mod" -nt "$target" ] || [ "$root/tools/go/go.sum" -nt "$target" ]; then
    echo "gotool: building $name (about a minute the first time)" >&2
    (cd "$root/tools/go" && go build -trimpath -mod=readonly -o "$bin/.$name.new" "$package")
    touch "$bin/.$name.new"
    mv "$bin/.$name.new" "$target"
fi
echo "$target"
