#!/bin/sh
# Runs one of the scripts beside it on the program given: `check.mjs` looks at the status page in a browser without a screen,
# `screenshot.mjs` takes its picture. The browser is the machine's.
set -eu

script=$1
shift
. tests/tools.sh
node_tools page

TOOLS=$(cd "$node" && pwd) exec node "tests/page/$script" "$@"
