#!/usr/bin/env bash
# Installs what the build needs on Debian 12 and Ubuntu 24.04 or newer. Does nothing when all of it is there.
set -euo pipefail

required=(
  build-essential cmake ninja-build ccache clang-format git python3
  libhdf5-dev libstb-dev libyaml-cpp-dev libcli11-dev libfmt-dev nlohmann-json3-dev zlib1g-dev libminizip-dev
  libgtest-dev libboost-context-dev # tests; gm_check --device simt has Boost.Context too
)
optional=(
  libdnnl-dev                     # oneDNN: much faster convolutions on the CPU
  libcfitsio-dev                  # FITS tables
  libcurl4-openssl-dev libssl-dev # gm_data fetch
)

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "setup: no apt-get here; install the equivalents of: ${required[*]} (optional: ${optional[*]})" >&2
  exit 0
fi

missing() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}
mapfile -t need < <(missing "${required[@]}")
mapfile -t want < <(missing "${optional[@]}")
[ $((${#need[@]} + ${#want[@]})) -eq 0 ] && exit 0

root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    [ ${#need[@]} -eq 0 ] && exit 0
    echo "setup: neither root nor sudo; have installed: ${need[*]}" >&2
    exit 1
  fi
  root=(sudo)
fi
apt() {
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}

echo "setup: installing ${need[*]} ${want[*]}"
apt update || echo "setup: the package lists could not be refreshed; trying with those at hand" >&2
if [ ${#need[@]} -gt 0 ] && ! apt install -y --no-install-recommends "${need[@]}"; then
  echo "setup: could not install: ${need[*]}" >&2
  exit 1
fi
for package in "${want[@]}"; do
  apt install -y --no-install-recommends "$package" ||
    echo "setup: $package could not be installed; the build goes on without it" >&2
done
