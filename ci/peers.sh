#!/bin/sh
# Installs what `make bench` compares the gateway with, where it is not there yet: from Debian's packages, which nobody starts.
set -eu
missing=""
command -v nginx >/dev/null 2>&1 || missing="$missing nginx-light"
command -v varnishd >/dev/null 2>&1 || missing="$missing varnish"
ls /usr/lib/*/varnish/vmods/libvmod_bodyaccess.so /usr/lib/varnish/vmods/libvmod_bodyaccess.so 2>/dev/null |
    grep -q . || missing="$missing varnish-modules"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
command -v taskset >/dev/null 2>&1 && command -v setpriv >/dev/null 2>&1 || missing="$missing util-linux"
[ -n "$missing" ] || exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -q
# The packages would start their servers: not on a machine that measures.
# shellcheck disable=SC2086 # a list of names
$sudo env RUNLEVEL=1 apt-get install -q -y --no-install-recommends $missing
