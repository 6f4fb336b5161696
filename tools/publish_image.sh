#!/usr/bin/env bash
# Build the image of a release, push it, and say what was pushed: name and digest, as GitHub's steps
# pass them on.
#
#   tools/publish_image.sh REGISTRY/OWNER/NAME vX.Y.Z
#
# The caller has logged in to the registry.
set -euo pipefail

if [ "$#" -ne 2 ] || [ -z "$1" ] || ! [[ $2 =~ ^v?[0-9]+\.[0-9]+\.[0-9]+ ]]; then
    echo "publish-image: give REGISTRY/OWNER/NAME and a version, as in: make image-publish IMAGE=… VERSION=v0.2.0" >&2
    exit 1
fi
# Names of images have no capitals; those of repositories may.
name=${1,,}
tag=$name:${2#v}

"$(dirname "$0")/image.sh" "ddq=$tag"
docker push --quiet "$tag" >/dev/null
# The one that this registry gave it, of all that this machine knows.
digest=$(docker image inspect --format '{{join .RepoDigests "\n"}}' "$tag" | sed -n "s|^$name@||p" | head -n 1)
if [ -z "$digest" ]; then
    echo "publish-image: $tag was pushed, and its digest is not known" >&2
    exit 1
fi
printf 'name=%s\ndigest=%s\n' "$name" "$digest" | tee -a "${GITHUB_OUTPUT:-/dev/null}"
