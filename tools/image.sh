#!/usr/bin/env bash
# Build the container images: `ddq`, which operators deploy, and `chaos`, which the chaos harness runs.
#
#   tools/image.sh [--if-engine] [TARGET=TAG ...]     by default: ddq=ddq:local chaos=ddq-chaos:local
#
# --if-engine: where no container engine answers, do nothing and be content.
#
# What a build needs of this machine it takes from the environment, and none of it is in an image:
#   DDQ_CA_FILE (else SSL_CERT_FILE)    certificate authorities, where TLS goes through one's own
#   http_proxy, https_proxy, no_proxy   as everywhere
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, GOPROXY, GONOSUMDB    other registries than the usual ones
# The store that `chaos` runs, for tests with others:
#   STORE          valkey-9 (the wheel's, by default), valkey-8 (Debian's), or an image that has one,
#                  as redis:7.2-bookworm
# Where no image registry can be reached, tools/base_image.sh makes the base image first.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
base=debian:trixie-slim

say() { echo "image: $*" >&2; }

optional=no
if [ "${1:-}" = --if-engine ]; then
    optional=yes
    shift
fi
if [ "$optional" = yes ] && ! docker version >/dev/null 2>&1; then
    exit 0
fi
if ! command -v docker >/dev/null; then
    say "the program docker is missing; install Debian's docker.io"
    exit 1
fi
if ! problem=$(docker version 2>&1 >/dev/null); then
    say "no container engine answers: ${problem##*$'\n'}; start Docker (as root: dockerd &)"
    exit 1
fi

[ "$#" -gt 0 ] || set -- ddq=ddq:local chaos=ddq-chaos:local

if ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull --quiet "$base" >/dev/null 2>&1; then
    say "$base can be had from no registry; making it from Debian's packages"
    "$root/tools/base_image.sh" "$base"
fi

# A context of its own, because the authorities are not in the project, and the classic builder has
# no secrets.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
context=$scratch/context
log=$scratch/log
mkdir -p "$context/.build-ca"
cp -r "$root"/{Dockerfile,pyproject.toml,requirements.lock,README.md,LICENSE,ddq} "$context"
find "$context/ddq" -name __pycache__ -prune -exec rm -rf {} +
authorities=${DDQ_CA_FILE:-${SSL_CERT_FILE:-}}
if [ -n "$authorities" ]; then
    # One file each: update-ca-certificates takes only the first one of a bundle.
    awk -v folder="$context/.build-ca" '
        /BEGIN CERTIFICATE/ { count++; inside = 1 }
        inside { print > sprintf("%s/build-%03d.crt", folder, count) }
        /END CERTIFICATE/ { inside = 0 }' "$authorities"
fi
# What is copied must not look newer for having been copied: times are part of no layer's key, but
# modes are.
chmod -R u=rwX,go=rX "$context"

case ${STORE:=valkey-9} in
    valkey-9 | valkey-8) STORE_IMAGE=$base ;;
    *) STORE_IMAGE=$STORE STORE=image ;;
esac

arguments=()
for name in GOPROXY GONOSUMDB PIP_INDEX_URL PIP_EXTRA_INDEX_URL STORE STORE_IMAGE; do
    [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
done
if [ -z "${GOPROXY:-}" ] && command -v go >/dev/null; then
    # Go keeps settings in a file of its own, too.
    arguments+=(--build-arg "GOPROXY=$(go env GOPROXY)")
fi
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [ -z "${!name:-}" ] || arguments+=(--build-arg "$name")
done

# What is in it, as `sha256sum` lists it: the harness refuses an image of yesterday's code. The same
# is counted in chaos/clusters/docker/engine.py.
digest=$(cd "$context" && find ddq -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d ' ' -f 1)

for pair in "$@"; do
    say "building ${pair#*=}"
    # The host's network: names and proxies that work here work there.
    DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} docker build --force-rm --network host --target "${pair%%=*}" --tag "${pair#*=}" \
        --label "ddq.source=$digest" \
        ${arguments[@]+"${arguments[@]}"} "$context" >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        say "${pair#*=} was not built"
        exit 1
    }
done
