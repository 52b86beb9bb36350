#!/bin/sh
# Installs what the tests need of a Debian machine and is not there yet: a C compiler and linker for ring; Python and Node
# for the tools that check what is in deploy/; what builds an image, signs certificates and reads systemd's units; and
# Chromium, with a font to write with, for the status page; and Redis, with clocks that can be wrong.
set -eu
missing=""
command -v cc >/dev/null 2>&1 || missing="$missing build-essential"
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3 python3-venv"
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
command -v buildah >/dev/null 2>&1 || missing="$missing buildah"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium fonts-dejavu-core"
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
[ -n "$missing" ] || exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -q
# shellcheck disable=SC2086 # a list of names
$sudo apt-get install -q -y --no-install-recommends $missing
# Debian starts the service that comes with the package; it would hold the port of the admin listener.
case $missing in
*prometheus*) [ ! -d /run/systemd/system ] || $sudo systemctl disable --now prometheus ;;
esac
case $missing in
*redis-server*) [ ! -d /run/systemd/system ] || $sudo systemctl disable --now redis-server ;;
esac
