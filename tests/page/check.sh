#!/bin/sh
# Runs one of the scripts beside it on the program given: `check.mjs` looks at the status page in a browser without a screen,
# `screenshot.mjs` takes its picture. What drives the browser comes at pinned versions into the target directory, and stays
# there; the browser is the machine's.
set -eu

script=$1
shift
here=tests/page
tools=${CARGO_TARGET_DIR:-target}/page

# A directory that is named for what is in it, and is there only when it is whole.
node=$tools/node-$(cksum $here/package.json $here/package-lock.json | cksum | cut -d ' ' -f 1)
if [ ! -e "$node/whole" ]; then
    rm -rf "$node"
    mkdir -p "$node"
    cp $here/package.json $here/package-lock.json "$node"
    npm ci --prefix "$node" --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel error
    touch "$node/whole"
fi

TOOLS=$(cd "$node" && pwd) exec node "$here/$script" "$@"
