#!/usr/bin/env bash
# An image of docker/Dockerfile, built here without a daemon (buildah) over a bare Debian 12 (debootstrap), then: its labels and
# user, the list of its packages (SPDX, by syft, left in build/image), what its user may write, and its server started as the
# image says it (its user, a read-only root, the real ports in a network of its own), asked and stopped. Of `cuda` the GPU alone
# is left out. Needs root, buildah, debootstrap, syft, and a Debian mirror, the one that this machine's apt uses (and PyPI for
# cuda). A ccache of this machine's makes it short.
#
#     tests/deploy/check_image.sh cpu|cuda SYFT
set -euo pipefail
target=$1
syft=$(realpath "$2")
cd "$(dirname "$0")/../.."
source tests/deploy/bare_debian.sh
for tool in buildah ip; do
  command -v $tool >/dev/null || { echo "$tool is not installed: apt-get install buildah iproute2" >&2; exit 1; }
done
mkdir -p build/image
work=$(mktemp -d)
buildah="buildah --root $work/storage --runroot $work/run --storage-driver vfs"
server=
cleanup() {
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
  $buildah umount --all >/dev/null 2>&1 || true
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
version=$(sed -n 's/^project(sessa_serve VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
name=sessa-serve:$version
[[ $target == cpu ]] || name+=-$target

bare_debian "$work/base" "$work/log"
# What this machine trusts beside Debian's list, for who sits behind a proxy.
mkdir -p "$work/base/usr/local/share/ca-certificates"
cp -r /usr/local/share/ca-certificates/. "$work/base/usr/local/share/ca-certificates/" 2>/dev/null || true
# As the published slim image has it.
printf 'path-exclude /usr/share/%s/*\n' doc man locale info >"$work/base/etc/dpkg/dpkg.cfg.d/docker"
echo 'path-include /usr/share/doc/*/copyright' >>"$work/base/etc/dpkg/dpkg.cfg.d/docker"
rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/* "$work"/base/usr/share/{man,locale,info}/*
container=$($buildah from scratch)
$buildah add -q "$container" "$work/base" / >/dev/null
$buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
$buildah commit -q --rm "$container" debian:12 >/dev/null
$buildah tag debian:12 debian:12-slim
rm -rf --one-file-system "$work/base"

echo "== $name"
options=(--isolation chroot --pull-never --build-arg "JOBS=${JOBS:-$(nproc)}")
# Where ccache is used here, what it holds of these sources is not compiled again.
cache=$(ccache -k cache_dir 2>/dev/null || true)
[[ ! -d $cache ]] || options+=(--volume "$cache:/root/.cache/ccache")
docker/build.sh "$target" "$buildah" "${options[@]}" >"$work/log" 2>&1 || { tail -40 "$work/log"; fail "the build"; }
$buildah inspect --type image "$name" >"$work/image.json"
config() { # KEY: of the image's configuration, as JSON without spaces
  python3 -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))["OCIv1"]["config"][sys.argv[2]], separators=(",", ":")))' "$work/image.json" "$1"
}
container=$($buildah from --pull-never "$name")
root=$($buildah mount "$container")
in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

[[ $(config User) == '"10001:10001"' ]] || fail "it runs as $(config User)"
[[ $(config StopSignal) == '"SIGTERM"' ]] || fail "it is stopped by $(config StopSignal)"
[[ $(config Labels) == *"\"org.opencontainers.image.version\":\"$version\""* ]] || fail "labels: $(config Labels)"
[[ $(in_root sessa-server --version) == "sessa-server $version" ]] || fail "--version"
missing=$(in_root ldd /usr/bin/sessa-server | grep 'not found' || true)
[[ -z $missing ]] || fail "libraries: $missing"
for program in gcc cc c++ ld make cmake python3 curl; do [[ ! -e $root/usr/bin/$program ]] || fail "/usr/bin/$program is in it"; done
writable=$(find "$root" -xdev \( -user 10001 -o -group 10001 -o -type f -perm -o=w \) | head -3)
[[ -z $writable ]] || fail "its user may write $writable"
if [[ $target == cpu ]] && in_root dpkg --verify sessa-serve | grep -v ' /usr/share/\(doc\|man\)/'; then fail "files differ from the package's"; fi

echo "== its packages"
SYFT_CHECK_FOR_APP_UPDATE=false "$syft" scan -q "dir:$root" --source-name "$name" --source-version "$version" -o "spdx-json=build/image/sessa-serve-$target.spdx.json"
packages=$(python3 -c 'import json, sys; print("\n".join(p["name"] + " " + p.get("versionInfo", "") for p in json.load(sys.stdin)["packages"]))' \
  <"build/image/sessa-serve-$target.spdx.json")
wanted=("sessa-serve $version" libgrpc++ libprotobuf32 libssl3 libc6)
[[ $target != cuda ]] || wanted+=(nvidia-cublas nvidia-nccl-cu13)
for package in "${wanted[@]}"; do grep -q "^$package" <<<"$packages" || fail "no $package among its packages"; done

echo "== the server, as the image says, with a read-only root"
# start FLAGS...: the image's command with these behind it, alone in its network, with nothing that it may write to.
start() {
  mapfile -t words < <(python3 -c 'import json, sys; print("\n".join(w for line in sys.argv[1:] for w in json.loads(line)))' \
    "$(config Entrypoint)" "$(config Cmd)")
  # shellcheck disable=SC2016  # for the shell inside
  unshare --mount --net bash -c 'ip link set lo up && mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" \
    && mount -t proc proc "$0/proc" && exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot --userspec=10001:10001 --groups= "$0" "$@"' "$root" "${words[@]}" "$@" >"$work/out" 2>"$work/log" &
  server=$!
  for _ in $(seq 600); do
    ! grep -q '^ready' "$work/out" || return 0
    kill -0 "$server" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}
start || { cat "$work/log"; fail "it did not start"; }
[[ $(<"$work/out") == "ready http=0.0.0.0:8000 grpc=0.0.0.0:8001 admin=0.0.0.0:8002" ]] || fail "it said $(<"$work/out")"
ask() { nsenter --net="/proc/$server/ns/net" curl -sS --fail "$@"; }
answer=$(ask http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \
  -d '{"prompt": "Maya said that the red key is in the barn.\nQuestion: Where is the red key?\nAnswer:", "temperature": 0, "stop": ["\n"]}')
grep -q '"text":' <<<"$answer" || fail "it answered $answer"
ask http://127.0.0.1:8002/readyz >/dev/null || fail "/readyz"
grep -q '^Uid:	10001	10001' "/proc/$server/status" || fail "its user"
kill -TERM "$server"
wait "$server" || fail "it ended with $?"
server=
if [[ $target == cuda ]]; then
  ! start --device=cuda || fail "it started on a GPU that is not there"
  wait "$server" && fail "no GPU, and it ended with 0"
  server=
  grep -qi 'cuda' "$work/log" || { cat "$work/log"; fail "it does not say why it did not start"; }
  echo "without a GPU: $(grep -i cuda "$work/log" | tail -1)"
fi
echo "passed: $name, $(du -shx "$root" | cut -f1), $(wc -l <<<"$packages") packages in build/image/sessa-serve-$target.spdx.json"
