"""Where a run has its files, and what it starts programs with."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"

# Seconds that a start, an end or an answer may take on a busy machine.
PATIENCE = 30


class Desk:
    """A folder that is gone afterwards, the program, and the tools."""

    def __init__(self, folder, program, node_modules):
        self.folder, self.program, self.node_modules = folder, program, node_modules
        self.cache = {}

    def tool(self, name):
        """A tool beside the Python that runs this."""
        return Path(sys.executable).parent / name

    def run(self, *command, env=None, **more):
        """What a command prints; one that fails fails the run."""
        command = [str(word) for word in command]
        environment = clean(env or {})
        return subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
            stdin=more.pop("stdin", subprocess.DEVNULL),
            **more,
        ).stdout

    def write(self, name, text, mode=0o644):
        """A file on the desk."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def rendered(self, overlay):
        """The objects of an overlay, by kind and name without a hash, as kubectl has them."""
        if overlay not in self.cache:
            text = self.run(
                self.tool("kubectl"),
                "kustomize",
                overlay if Path(overlay).is_absolute() else DEPLOY / "kubernetes" / overlay,
            )
            self.write(f"rendered/{Path(overlay).name}.yaml", text)
            self.cache[overlay] = list(yaml.safe_load_all(text))
        return self.cache[overlay]

    def one(self, overlay, kind, name=None):
        """The only object of a kind."""
        found = [it for it in self.rendered(overlay) if it["kind"] == kind and name in (None, it["metadata"]["name"])]
        assert len(found) == 1, f"{overlay} has {len(found)} of {kind} {name or ''}"
        return found[0]

    def check(self, config, environment):
        """What the program makes of a configuration."""
        path = self.write("checked.toml", config)
        return tomllib.loads(self.run(self.program, "check", "--config", path, env=environment))

    @contextlib.contextmanager
    def running(self, name, *command, inside=lambda process: process.pid):
        """Starts a program; hands over how to wait for what it says. It is ended by SIGTERM, and must end well.

        Where what is started only starts another, `inside` says which process that is.
        """
        output = self.folder / f"{name}.log"
        with output.open("wb") as log:
            command = [str(word) for word in command]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean({}))

        def said(pattern):
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                if found := re.search(pattern, output.read_text()):
                    return found.groups()
                assert process.poll() is None, f"{name} ended:\n{output.read_text()}"
                time.sleep(0.05)
            raise AssertionError(f"{name} did not say {pattern}:\n{output.read_text()}")

        said.inside = lambda: inside(process)
        try:
            yield said
            os.kill(inside(process), signal.SIGTERM)
            status = process.wait(PATIENCE)
            assert status == 0, f"{name} ended with status {status}:\n{output.read_text()[-4000:]}"
        finally:
            if process.poll() is None:
                for victim in {inside(process), process.pid}:
                    os.kill(victim, signal.SIGKILL)
                process.wait()


def clean(more):
    """The environment without what would configure a gateway, and with this."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | more


def container(workload):
    """The gateway's container of a Deployment, wherever in the pod it stands."""
    pod = workload["spec"]["template"]["spec"]
    (found,) = [it for it in [*pod.get("initContainers", []), *pod["containers"]] if it["name"] == "gateway"]
    return found


def variables(of):
    """The variables of a container that stand in the manifest."""
    return {it["name"]: it["value"] for it in of.get("env", []) if "value" in it}


def amount(text):
    """`512MiB`, `1Gi` or `250m` as a number of bytes or cores."""
    units = {"": 1, "B": 1, "m": 1e-3}
    units |= {unit + end: 1024**power for power, unit in enumerate(("Ki", "Mi", "Gi"), 1) for end in ("", "B")}
    number, unit = re.fullmatch(r"([\d.]+) *([A-Za-z]*)", str(text)).groups()
    return float(number) * units[unit]


def seconds(text):
    """`250ms`, `25s` or `1m 15s` as a number of seconds."""
    units = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "day": 86400, "days": 86400}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([a-z]+)", text))
