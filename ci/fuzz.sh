#!/bin/sh
# Runs fuzz targets for so many seconds each: `ci/fuzz.sh SECONDS TARGET…`, from the root of the repository. It starts with
# the seeds; what it finds to be new lies in the cargo target directory and is where the next run goes on.
set -eu

seconds=$1
shift
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing needs a nightly compiler: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzzing needs cargo-fuzz: cargo install cargo-fuzz --locked" >&2
    exit 1
fi

# There is no unsafe code to watch over, and without a sanitizer twice as much is tried in the same time.
output=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
build="--sanitizer none --target-dir $output"
for target in "$@"; do
    # What is longer than this is only more of the same.
    case $target in
    path) longest=256 ;;
    directives) longest=512 ;;
    *) longest=4096 ;;
    esac
    corpus=$output/corpus/$target
    mkdir -p "$corpus"
    echo "== $target, for $seconds s"
    # shellcheck disable=SC2086
    cargo +nightly fuzz run $build "$target" "$corpus" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len="$longest" -timeout=10 -rss_limit_mb=1024 \
        -dict="fuzz/dictionaries/$target.dict" -print_final_stats=1
done
