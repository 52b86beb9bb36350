"""The queries of the dashboard and of the alerts: each as a Prometheus is asked for it."""

import json
import re
from pathlib import Path

import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"


def dashboard():
    """Every panel's queries; the dashboard has gone through the SDK and lost nothing."""
    plugins.register_default_plugins()
    written = json.loads((ROOT / "deploy" / "grafana" / "audience-gateway.json").read_text())
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(written)))
    assert again == written, "the dashboard is changed by a round trip"
    panels = [panel for panel in written["panels"] if panel["type"] != "row"]
    assert len(panels) >= 16
    queries = {}
    for panel in panels:
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["id"]
        assert panel["targets"], panel["title"]
        for number, target in enumerate(panel["targets"]):
            query = target["expr"].replace("$__rate_interval", "30s").replace("$job", ".*").replace("$instance", ".*")
            assert "$" not in query, query
            queries[f"panel {panel['title']} {number}"] = query
    return queries


def alerts():
    """Every alert's rule."""
    rules = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    assert len(rules) >= 8 and all("expr" in rule for rule in rules)
    return rules


def sides(rule):
    """The left-hand side of each comparison of an alert, and of the right-hand one what is no number."""
    found = {}
    for part in re.split(r"\s+(?:and|or)\s+(?:on\s*\([^)]*\)\s*)?", rule["expr"]):
        if part.startswith("absent("):
            found[f"alert {rule['alert']}: what is absent"] = part.removeprefix("absent(").removesuffix(")")
            continue
        left, right = re.fullmatch(r"(.+?)\s+(?:[<>]=?|[!=]=)\s+(.+)", part, re.DOTALL).groups()
        assert left.count("(") == left.count(")"), left
        found[f"alert {rule['alert']}: {left}"] = left
        if not re.fullmatch(r"[0-9.]+", right):
            found[f"alert {rule['alert']}: {right}"] = right
    return found
