#!/usr/bin/env bash
# Make the base image from Debian's packages, where no image registry can be reached. As root.
#
#   tools/base_image.sh [TAG]     by default debian:trixie-slim
#
# DEBIAN_MIRROR names another mirror than Debian's own.
set -euo pipefail

tag=${1:-debian:trixie-slim}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

if ! command -v mmdebstrap >/dev/null; then
    echo "base-image: mmdebstrap is missing; install the package mmdebstrap" >&2
    exit 1
fi
file=$(mktemp --suffix=.tar)
trap 'rm -f "$file"' EXIT
mmdebstrap --quiet --variant=minbase --include=ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    trixie "$file" "$mirror"
docker import "$file" "$tag" >/dev/null
