#!/usr/bin/env bash
# The Debian package on a machine that has nothing: a bare Debian 12 in a folder (debootstrap), the package and what it asks
# for installed there by apt, the server started as the service starts it (an unprivileged user, a read-only root, the file
# of flags) and asked; then removed and purged. Needs root and a Debian mirror, the one that this machine's apt uses.
#
#     tests/deploy/check_package.sh sessa-serve_VERSION_ARCH.deb
set -euo pipefail
package=$(realpath "$1")
source "$(dirname "$0")/bare_debian.sh"
work=$(mktemp -d)
root=$work/root
server=
cleanup() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  umount -l "$root/proc" 2>/dev/null || true
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"; }

bare_debian "$root" "$work/debootstrap.log"
cp /etc/resolv.conf "$root/etc/" 2>/dev/null || true
mount -t proc proc "$root/proc"
# minbase leaves manual pages out; the package's are looked for below.
rm -f "$root"/etc/dpkg/dpkg.cfg.d/*
cp "$package" "$root/tmp/package.deb"
echo "== apt install"
in_root apt-get update -q >"$work/apt.log" 2>&1
in_root apt-get install -q -y --no-install-recommends /tmp/package.deb >>"$work/apt.log" 2>&1 || { tail -20 "$work/apt.log"; fail "apt install"; }
in_root dpkg --verify sessa-serve || fail "files differ from the package's"
version=$(dpkg-deb -f "$package" Version)
[[ $(in_root sessa-server --version) == "sessa-server $version" ]] || fail "--version"
[[ $(in_root sessa-loadtest --version) == "sessa-loadtest $version" ]] || fail "sessa-loadtest --version"
for file in usr/share/man/man8/sessa-server.8.gz usr/share/man/man1/sessa-loadtest.1.gz usr/share/doc/sessa-serve/copyright; do
  [[ -s $root/$file ]] || fail "no /$file"
done
gzip -dc "$root/usr/share/man/man8/sessa-server.8.gz" | grep -q 'state_cache_bytes' || fail "the manual page has no flags"

echo "== the server, as user 65534 with a read-only root"
unit=$root/usr/lib/systemd/system/sessa-serve.service
[[ $(sed -n 's/^ExecStart=//p' "$unit") == "/usr/bin/sessa-server --flagfile=/etc/sessa-serve/flags" ]] || fail "ExecStart"
unshare --mount bash -c 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec chroot --userspec=65534:65534 "$0" \
  /usr/bin/sessa-server --flagfile=/etc/sessa-serve/flags --http_port=0 --grpc_port=0' "$root" >"$work/out" 2>"$work/log" &
server=$!
for _ in $(seq 600); do
  grep -q '^ready' "$work/out" && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log"; fail "it did not start"; }
  sleep 0.1
done
address=$(sed -n 's/^ready http=\([^ ]*\).*/\1/p' "$work/out")
answer=$(curl -sS --fail "http://$address/v1/completions" -H 'Content-Type: application/json' \
  -d '{"prompt": "Maya said that the red key is in the barn.\nQuestion: Where is the red key?\nAnswer:", "temperature": 0, "stop": ["\n"]}')
grep -q '"text":' <<<"$answer" || fail "it answered $answer"
curl -sS --fail "http://$address/version" | grep -q "\"$version\"" || fail "/version"
kill -TERM "$server"
wait "$server" || fail "it ended with $?"
server=

echo "== apt remove and purge"
in_root apt-get purge -q -y sessa-serve >>"$work/apt.log" 2>&1 || { tail -20 "$work/apt.log"; fail "apt purge"; }
left=$(find "$root/etc" "$root/usr" "$root/var/lib" -name '*sessa*' -not -path '*/dpkg/*' -not -path '*/apt/*')
[[ -z $left ]] || fail "left behind: $left"
echo "passed: $(du -shx "$root" | cut -f1) with all that the package needs"
