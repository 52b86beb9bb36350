"""Puts load on a gateway that a Prometheus watches: every query has data that is real, and alerts fire.

Usage: run.py PROGRAM, from the root of the checkout. All that is started ends with this.
"""

import contextlib
import json
import math
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

import queries
import yaml
from load import Load, get

PATIENCE = 60

# What each panel and alert must have seen above zero, label by label.
SEEN = {
    "gateway_requests_total": {"status": "200 429 502"},
    "gateway_lookup_keys_total": {"result": "hit stale negative miss bypass"},
    "gateway_cache_evictions_total": {"cause": "size"},
    "gateway_queue_keys": {"class": "waiting"},
    "gateway_queue_rejected_total": {"reason": "deadline full outage"},
    "gateway_upstream_requests_total": {"outcome": "success throttled unauthorized unavailable"},
    "gateway_upstream_slots_total": {"used": "true false"},
    "gateway_refreshed_keys_total": {"how": "event"},
    "gateway_passthrough_requests_total": {"status": "200"},
    "gateway_invalidations_total": {"outcome": "applied"},
    "gateway_events_total": {"outcome": "refreshed"},
    "gateway_connections_ended_total": {"reason": "overloaded"},
    "gateway_purged_keys_total": {},
    "gateway_invalidated_keys_total": {},
    "gateway_coalesced_keys_total": {},
}

# Alerts that fire for what is done here; their `for` is taken off. The rest need hours, and have their cases with promtool.
FIRE = """GatewayErrors GatewayLookupsTurnedAway GatewayRefusalsPersist GatewayUpstreamDown GatewayCacheEvictsYoung
GatewayTokenAboutToFail GatewayUnauthorized GatewayConnectionsRefused GatewayFilesRunOut""".split()


class Process:
    """A process that is ended with this, and what it says."""

    def __init__(self, desk, name, *command, files=None):
        self.output = desk / f"{name}.log"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
        limit = files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)))
        with self.output.open("wb") as log:
            self.child = subprocess.Popen(
                [*map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean, preexec_fn=limit
            )

    def said(self, pattern):
        """Waits for a line."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.child.poll() is None:
            if found := re.search(pattern, self.output.read_text()):
                return found.groups()
            time.sleep(0.05)
        sys.exit(f"{self.child.args[0]} did not start:\n{self.output.read_text()[-3000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()


def free_address():
    """An address of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % free.getsockname()[1]


def configured(desk, name, upstream, admin, more):
    """A gateway's configuration."""
    path = desk / f"{name}.toml"
    path.write_text(f'server.admin_listen = "{admin}"\nupstream.base_url = "http://{upstream}/api/open"\n{more}')
    return path


# Small in everything, so that all its limits are met; the token that it gets is about to end.
BUSY = """server.listen = "127.0.0.1:0"
server.max_connections = 60
upstream.request_timeout = "1s"
upstream.credentials = { mode = "managed", instance_appid = "a", instance_secret = "s" }
lookup = [{ interval = "100ms", max_pending_keys = 400 }]
cache = { capacity = "512KiB", ttl = "2s", negative_ttl = "2s", stale_while_revalidate = "2s" }
"""

# Open files of a gateway that is to run out of them: it has some twenty of its own.
FEW = 100

# With few files, and callers whose token is not taken.
POOR = """server.listen = "127.0.0.1:0"
server.max_connections = 1000
lookup = [{ interval = "500ms" }]
"""


def watch(desk, targets):
    """A Prometheus of this configuration and these rules, in seconds instead of minutes."""
    scrape = yaml.safe_load((queries.PROMETHEUS / "prometheus.yml").read_text())
    scrape["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    scrape["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    for name in scrape["rule_files"]:
        rules = yaml.safe_load((queries.PROMETHEUS / name).read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"] if "for" in rule):
            rule["for"] = "1s"
        (desk / name).write_text(yaml.safe_dump(rules))
    (desk / "prometheus.yml").write_text(yaml.safe_dump(scrape))
    address = free_address()
    files = f"--config.file={desk}/prometheus.yml", f"--storage.tsdb.path={desk}/data"
    process = Process(desk, "prometheus", "prometheus", *files, f"--web.listen-address={address}")

    def api(path, **query):
        return json.loads(get(f"http://{address}/api/v1/{path}?" + urllib.parse.urlencode(query)))["data"]

    return process, api


class Watched:
    """What Prometheus has been seen to know: the largest value of every query, and the alerts that fired."""

    def __init__(self, api, asked):
        self.api, self.asked = api, asked
        self.largest, self.fired = {}, set()

    def look(self):
        """Asks everything once."""
        for name, query in self.asked.items():
            for it in self.api("query", query=query)["result"]:
                value = float(it["value"][1])
                if not math.isnan(value):
                    self.largest[name] = max(value, self.largest.get(name, value))
        alerts = self.api("alerts")["alerts"]
        self.fired |= {it["labels"]["alertname"] for it in alerts if it["state"] == "firing"}

    def until(self, what, done):
        """Looks until there is nothing left of what `done` names."""
        deadline = time.monotonic() + PATIENCE
        while left := done(self):
            assert time.monotonic() < deadline, f"{what}: {json.dumps(sorted(left), indent=1)}"
            self.look()
            time.sleep(0.2)


def expected():
    """Every query, and every sample of SEEN."""
    asked = queries.dashboard()
    for rule in queries.alerts():
        asked |= queries.sides(rule)
    real = set(asked)
    for metric, labels in SEEN.items():
        names = [f'{metric}{{{label}="{value}"}}' for label, values in labels.items() for value in values.split()]
        asked |= {f"sample {name}": name for name in names or [metric]}
    return asked, real | {name for name in asked if name.startswith("sample ")}


def main():
    """Start, load, ask; break, ask; end, ask."""
    asked, real = expected()
    program = sys.argv[1]
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        desk, start = Path(folder), stack.enter_context
        simulate = "simulate --listen 127.0.0.1:0 --interval 100ms --token-ttl 120s --accept-any-token false --latency 40ms"
        simulator = start(Process(desk, "simulator", program, *simulate.split()))
        (upstream,) = simulator.said(r"http://(\S+?)/")
        busy = configured(desk, "busy", upstream, "127.0.0.1:0", BUSY)
        listening = r'"listen":"([^"]+)","admin_listen":"([^"]+)"'
        gateway = start(Process(desk, "gateway", program, "serve", "--config", busy))
        callers, operators = gateway.said(listening)
        poor_admin = free_address()
        config = configured(desk, "poor", upstream, poor_admin, POOR)
        prometheus, api = watch(desk, [operators, poor_admin])
        start(prometheus).said("Server is ready")
        watched = Watched(api, asked)
        poor = start(Process(desk, "poor", program, "serve", "--config", config, files=FEW))
        poor_callers, _ = poor.said(listening)
        # Before there is anybody else: who is refused for the pace is not told about the token.
        for _ in range(6):
            get(f"http://{poor_callers}/api/audience/detail", {"phoneList": ["1"]}, {"x-token": "old"})
            watched.look()
        load = start(Load(callers, operators, upstream))
        load.hold(poor_callers, FEW - 30)
        load.hold(callers, 70)
        for connection in load.held[FEW - 30 :]:
            connection.close()
        # A good while, then an outage, then it is back.
        for pause in (6, 8):
            deadline = time.monotonic() + pause
            while time.monotonic() < deadline:
                watched.look()
                time.sleep(0.3)
            simulator.child.send_signal(signal.SIGSTOP if pause == 6 else signal.SIGCONT)
        watched.until("never above zero", lambda it: {name for name in real if it.largest.get(name, 0) <= 0})
        watched.until("did not fire", lambda it: set(FIRE) - it.fired)
        unhealthy = [it for group in api("rules")["groups"] for it in group["rules"] if it["health"] != "ok"]
        assert not unhealthy, unhealthy
        metrics = get(f"http://{operators}/metrics")
        subprocess.run(["promtool", "check", "metrics"], input=metrics, text=True, check=True)
        series = sum(not line.startswith("#") for line in metrics.splitlines())
        assert 200 < series < 300, series
        gateway.child.kill()
        poor.child.kill()
        watched.until("did not fire", lambda it: {"GatewayAbsent"} - it.fired)
    print(f"{len(asked)} queries have data above zero; fired: {', '.join(sorted(watched.fired))}")


if __name__ == "__main__":
    main()
