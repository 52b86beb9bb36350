# What the tests beside this read other programs with: at pinned versions, installed once into a directory of the target directory
# that is named for what is in it, and is there only when it is whole. Sourced by their check.sh, from the root of the checkout.
# shellcheck shell=sh

sum() { cksum "$@" | cksum | cut -d ' ' -f 1; }

# Sets `python` to a virtual environment with the requirements of tests/NAME; how they are installed is for `install_python` to say,
# where that is defined.
python_tools() {
    version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    python=${CARGO_TARGET_DIR:-target}/$1/python-$version-$(sum "tests/$1/requirements.txt")
    [ ! -e "$python/whole" ] || return 0
    rm -rf "$python"
    python3 -m venv "$python"
    pip="$python/bin/python -m pip install --quiet --disable-pip-version-check"
    if command -v install_python >/dev/null; then
        install_python
    else
        $pip -r "tests/$1/requirements.txt"
    fi
    touch "$python/whole"
}

# Sets `node` to a directory with the packages of tests/NAME; none of them needs its install script.
node_tools() {
    node=${CARGO_TARGET_DIR:-target}/$1/node-$(sum "tests/$1/package.json" "tests/$1/package-lock.json")
    [ ! -e "$node/whole" ] || return 0
    rm -rf "$node"
    mkdir -p "$node"
    cp "tests/$1/package.json" "tests/$1/package-lock.json" "$node"
    npm ci --prefix "$node" --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel error
    touch "$node/whole"
}
