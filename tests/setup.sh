#!/bin/sh
# Installs what the tests need of a Debian machine and is not there yet: a C compiler and linker for ring.
set -eu
command -v cc >/dev/null 2>&1 && exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -q
$sudo apt-get install -q -y --no-install-recommends build-essential
