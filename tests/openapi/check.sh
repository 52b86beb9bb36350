#!/bin/sh
# Checks deploy/openapi.yaml: spectral reads it, and schemathesis puts what it describes to the program given, which runs
# for that time only.
set -eu

program=$1
here=tests/openapi
. tests/tools.sh
python_tools openapi
node_tools openapi

"$node/node_modules/.bin/spectral" lint --ruleset $here/spectral.yaml --fail-severity hint deploy/openapi.yaml
"$python/bin/python" -B $here/run.py "$program"
