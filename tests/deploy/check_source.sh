#!/usr/bin/env bash
# The README's first command on a machine that has nothing: a bare Debian 12 in a folder (debootstrap) with this tree's files,
# `./dev serve` there (which installs, builds and serves), asked and stopped; then `cmake --install`. Needs root, debootstrap, git
# and a Debian mirror, the one that this machine's apt uses. A ccache of this machine's makes it short.
#
#     tests/deploy/check_source.sh      (./dev check-source)
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/deploy/bare_debian.sh
work=$(mktemp -d)
root=$work/root
server=
cleanup() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

bare_debian "$root" "$work/log"
cp /etc/resolv.conf "$root/etc/" 2>/dev/null || true
mkdir -p "$root/src" "$root/root/.cache/ccache" "$work/none"
git ls-files -z --cached --others --exclude-standard | xargs -0 ls -d 2>/dev/null | tar -cf - -T - | tar -xf - -C "$root/src"
cache=$(ccache -k cache_dir 2>/dev/null || true)
[[ -d $cache ]] || cache=$work/none

# in_root COMMAND: in a mount namespace of its own, so that nothing stays mounted that would be removed with the folder.
in_root() {
  # shellcheck disable=SC2016  # for the shell inside
  exec unshare --mount bash -c 'mount -t proc proc "$0/proc" && mount --bind "$1" "$0/root/.cache/ccache" &&
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 JOBS="$2" CCACHE_BASEDIR=/src CCACHE_NOHASHDIR=1 \
      chroot "$0" bash -c "cd /src && $3"' "$root" "$cache" "${JOBS:-$(nproc)}" "$1"
}
echo "== ./dev serve"
in_root 'exec ./dev serve --http_port=0 --grpc_port=0' >"$work/out" 2>"$work/log" &
server=$!
until address=$(sed -n 's/^ready http=\([^ ]*\).*/\1/p' "$work/out") && [[ -n $address ]]; do
  kill -0 "$server" 2>/dev/null || { tail -n 20 "$work/out" "$work/log"; fail "it did not start"; }
  sleep 1
done
answer=$(curl -sS --fail "http://$address/v1/completions" -H 'Content-Type: application/json' \
  -d '{"prompt": "Maya said that the red key is in the barn.\nQuestion: Where is the red key?\nAnswer:", "temperature": 0, "stop": ["\n"]}')
grep -q '"text":' <<<"$answer" || fail "it answered $answer"
kill -TERM "$server"
wait "$server" || fail "it ended with $?"
server=

echo "== cmake --install"
# shellcheck disable=SC2016
(in_root 'ninja -C build/release -j "$JOBS" sessa-loadtest man && cmake --install build/release --prefix /opt/sessa') >"$work/out" 2>&1 ||
  { tail -20 "$work/out"; fail "cmake --install"; }
version=$(sed -n 's/^project(sessa_serve VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
for program in sessa-server sessa-loadtest; do
  [[ $(chroot "$root" "/opt/sessa/bin/$program" --version) == "$program $version" ]] || fail "$program --version"
done
echo "passed: $(du -shx "$root" | cut -f1) with all that the build needs"
