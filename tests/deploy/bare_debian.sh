# shellcheck shell=bash
# Sourced by the checks that need a machine that has nothing. bare_debian FOLDER LOG: a bare Debian 12 there (debootstrap), from the
# mirror that this machine's apt uses and with its settings. Needs root. The caller's `fail` ends it.
command -v debootstrap >/dev/null || { echo "debootstrap is not installed" >&2; exit 1; }

bare_debian() {
  local mirror
  echo "== a bare Debian 12"
  # shellcheck disable=SC2016  # apt's own variable
  mirror=$(apt-get indextargets --format '$(SITE)' 'Codename: bookworm' | head -1)
  debootstrap --variant=minbase bookworm "$1" "$mirror" >"$2" 2>&1 || { tail -5 "$2"; fail debootstrap; }
  cp -r /etc/apt/apt.conf.d/. "$1/etc/apt/apt.conf.d/"
}
