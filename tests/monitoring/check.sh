#!/bin/sh
# Checks deploy/prometheus and deploy/grafana: promtool with the rules, then a Prometheus that watches the program given.
set -eu

program=$1
here=tests/monitoring
. tests/tools.sh
python_tools monitoring

promtool check rules deploy/prometheus/rules.yml deploy/prometheus/alerts.yml
promtool test rules deploy/prometheus/tests/*.yml
"$python/bin/python" -B $here/run.py "$program"
