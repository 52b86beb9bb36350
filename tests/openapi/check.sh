#!/bin/sh
# Checks deploy/openapi.yaml: spectral reads it, and schemathesis puts what it describes to the program given, which runs
# for that time only. Both tools come at pinned versions into the target directory, and stay there.
set -eu

program=$1
here=tests/openapi
tools=${CARGO_TARGET_DIR:-target}/openapi

# A directory that is named for what is in it, and is there only when it is whole.
sum() { cksum "$@" | cksum | cut -d ' ' -f 1; }
python=$tools/python-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(sum $here/requirements.txt)
node=$tools/node-$(sum $here/package.json $here/package-lock.json)

if [ ! -e "$python/whole" ]; then
    rm -rf "$python"
    python3 -m venv "$python"
    "$python/bin/python" -m pip install --quiet --disable-pip-version-check -r $here/requirements.txt
    touch "$python/whole"
fi
if [ ! -e "$node/whole" ]; then
    rm -rf "$node"
    mkdir -p "$node"
    cp $here/package.json $here/package-lock.json "$node"
    # None of the packages needs its install script.
    npm ci --prefix "$node" --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel error
    touch "$node/whole"
fi

"$node/node_modules/.bin/spectral" lint --ruleset $here/spectral.yaml --fail-severity hint deploy/openapi.yaml
"$python/bin/python" -B $here/run.py "$program"
