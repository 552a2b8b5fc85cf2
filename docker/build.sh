#!/usr/bin/env bash
# Builds an image of docker/Dockerfile and names it sessa-serve:VERSION (-cuda), with the version of CMakeLists.txt, the one place
# that has it, and the commit as labels.
#
#     docker/build.sh cpu|cuda TOOL [options of TOOL build]      TOOL: docker, podman or buildah, with options of its own
set -euo pipefail
target=$1
read -ra tool <<<"$2"
shift 2
cd "$(dirname "$0")/.."
version=$(sed -n 's/^project(sessa_serve VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
case $target in
  cpu) tag=$version ;;
  cuda) tag=$version-cuda ;;
  *) echo "cpu or cuda, not '$target'" >&2; exit 2 ;;
esac
# docker finds the list of what to leave out by its name; the others are told.
[[ ${tool[0]##*/} == docker ]] || set -- --ignorefile docker/Dockerfile.dockerignore "$@"
exec "${tool[@]}" build -f docker/Dockerfile --target "$target" --build-arg VERSION="$version" \
  --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || true)" -t "sessa-serve:$tag" "$@" .
