#!/bin/sh
# Checks deploy/prometheus and deploy/grafana: promtool with the rules, then a Prometheus that watches the program given.
set -eu

program=$1
here=tests/monitoring
tools=${CARGO_TARGET_DIR:-target}/monitoring
python=$tools/python-$(cksum $here/requirements.txt | cut -d ' ' -f 1)
if [ ! -e "$python/whole" ]; then
    rm -rf "$python"
    python3 -m venv "$python"
    "$python/bin/python" -m pip install --quiet --disable-pip-version-check -r $here/requirements.txt
    touch "$python/whole"
fi
promtool check rules deploy/prometheus/rules.yml deploy/prometheus/alerts.yml
promtool test rules deploy/prometheus/tests/*.yml
"$python/bin/python" -B $here/run.py "$program"
