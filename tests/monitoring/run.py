"""Puts load on a gateway that a Prometheus watches: every query of the dashboard and of the alerts has data.

Usage: run.py PROGRAM, from the root of the checkout. All that is started ends with this.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
PATIENCE = 40


def get(url, body=None):
    """What is answered, whatever the status."""
    request = urllib.request.Request(url, body and body.encode(), {"content-type": "application/json"} if body else {})
    try:
        return urllib.request.urlopen(request, timeout=PATIENCE).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


@contextlib.contextmanager
def running(output, *command):
    """A process that is ended with this; hands over how to wait for what it says."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean)

    def said(pattern):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            if found := re.search(pattern, output.read_text()):
                return found.groups()
            time.sleep(0.05)
        sys.exit(f"{command[0]} did not start:\n{output.read_text()[-3000:]}")

    try:
        yield said
    finally:
        process.kill()
        process.wait()


def dashboard():
    """The dashboard, which has gone through the SDK and lost nothing."""
    plugins.register_default_plugins()
    written = json.loads((ROOT / "deploy" / "grafana" / "audience-gateway.json").read_text())
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(written)))
    assert again == written, "the dashboard is changed by a round trip"
    panels = [panel for panel in written["panels"] if panel["type"] != "row"]
    assert len(panels) >= 16
    for panel in panels:
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["id"]
    return panels


def main():
    """Start, load, ask."""
    panels = dashboard()
    alerts = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    program = sys.argv[1]
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        start = lambda name, *command: stack.enter_context(running(desk / f"{name}.log", *map(str, command)))
        simulate = ("simulate", "--listen", "127.0.0.1:0", "--interval", "50ms")
        (upstream,) = start("simulator", program, *simulate)(r"http://(\S+?)/")
        config = desk / "gateway.toml"
        config.write_text(
            'server = { listen = "127.0.0.1:0", admin_listen = "127.0.0.1:0" }\n'
            f'upstream = {{ base_url = "http://{upstream}/api/open", credentials = '
            '{ mode = "managed", instance_appid = "a", instance_secret = "s" } }\n'
            '[[lookup]]\ninterval = "100ms"\n'
        )
        gateway = start("gateway", program, "serve", "--config", config)
        callers, operators = gateway(r'"listen":"([^"]+)","admin_listen":"([^"]+)"')
        scrape = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        scrape["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        scrape["rule_files"] = [str(PROMETHEUS / name) for name in scrape["rule_files"]]
        scrape["scrape_configs"][0]["static_configs"] = [{"targets": [operators]}]
        (desk / "prometheus.yml").write_text(yaml.safe_dump(scrape))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        listen = f"--web.listen-address={address}"
        watcher = start("prometheus", "prometheus", f"--config.file={desk}/prometheus.yml", f"--storage.tsdb.path={desk}/data", listen)
        watcher("Server is ready")
        api = lambda path, **query: json.loads(get(f"http://{address}/api/v1/{path}?" + urllib.parse.urlencode(query)))["data"]
        has_data = lambda query: any(it["value"][1] != "NaN" for it in api("query", query=query)["result"])
        queries = {}
        for panel in panels:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "30s").replace("$job", ".*").replace("$instance", ".*")
                queries[f"panel {panel['title']}"] = query
        for rule in alerts:
            # The parts without what they are compared with.
            metrics = re.findall(r"\b(?:gateway[_:]|process_)[a-z0-9_:]+(?:\{[^}]*\})?", rule["expr"])
            queries |= {f"alert {rule['alert']}: {metric}": metric for metric in metrics}
        deadline, count = time.monotonic() + PATIENCE, 0
        while queries and time.monotonic() < deadline:
            for _ in range(10):
                count += 1
                get(f"http://{callers}/api/audience/detail", json.dumps({"phoneList": [f"139{count:08}"]}))
                get(f"http://{callers}/api/audience/detail", json.dumps({"phoneList": ["13900000001"]}))
            get(f"http://{callers}/echo")
            queries = {name: query for name, query in queries.items() if not has_data(query)}
        assert not queries, f"no data: {json.dumps(queries, indent=1)}"
        unhealthy = [it for group in api("rules")["groups"] for it in group["rules"] if it["health"] != "ok"]
        assert not unhealthy, unhealthy
        subprocess.run(["promtool", "check", "metrics"], input=get(f"http://{operators}/metrics"), text=True, check=True)
    print(f"{len(panels)} panels and {len(alerts)} alerts have data")


if __name__ == "__main__":
    main()
