"""Puts the requests that schemathesis makes of deploy/openapi.yaml to a gateway that runs, with a simulated upstream behind it.

Usage: run.py PROGRAM, with the Python in whose environment schemathesis is installed, from the root of the checkout.

Twice: a gateway that serves anybody, with its admin listener; and one whose clients have tokens, by the paths below the base
path. The second is described by the same document with the token made compulsory. All that is started ends with this.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).parent.resolve()
DOCUMENT = HERE.parent.parent / "deploy" / "openapi.yaml"
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
TOKEN = "the-token-of-a-test"

# Seconds that a start may take, and that one run of schemathesis may; on two busy cores it takes ten.
START, RUN = 30, 300

# What is asked in a test is not to wait for a slot.
LOOKUPS = """
[[lookup]]
path = "/api/audience/detail"
interval = "10ms"
[[lookup]]
path = "/api/audience/user/tag/batchlist"
interval = "10ms"
"""


@contextlib.contextmanager
def running(desk, name, arguments):
    """Starts the program; hands over how to wait for what it says, and ends it."""
    output = desk / f"{name}.log"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_") and key != "RUST_LOG"}
    with output.open("wb") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean, cwd=desk)

    def said(pattern):
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and process.poll() is None:
            if found := re.search(pattern, output.read_text()):
                return found.groups()
            time.sleep(0.05)
        sys.exit(f"{name} did not start:\n{output.read_text()}")

    try:
        yield said
        process.terminate()
        status = process.wait(START)
        if status != 0 and name == "gateway":
            sys.exit(f"the gateway ended with status {status}:\n{output.read_text()[-4000:]}")
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def gateway(desk, program, more=""):
    """A gateway and its upstream: the addresses of its two listeners."""
    simulate = "simulate --listen 127.0.0.1:0 --interval 5ms --tags-window 50ms --latency 1ms --jitter 0ms".split()
    with running(desk, "simulator", [program, *simulate]) as said:
        (upstream,) = said(r"http://(\S+?)/")
        config = desk / "gateway.toml"
        listeners = 'server.listen = "127.0.0.1:0"\nserver.admin_listen = "127.0.0.1:0"\n'
        config.write_text(f'upstream.base_url = "http://{upstream}/api/open"\n{listeners}{more}{LOOKUPS}')
        with running(desk, "gateway", [program, "serve", "--config", str(config)]) as said:
            yield said(r'"listen":"([^"]+)","admin_listen":"([^"]+)"')


def ask(desk, document, url, tag, more=()):
    """Runs schemathesis; whether it found nothing."""
    print(f"schemathesis: {tag} at {url}", flush=True)
    command = [
        *(SCHEMATHESIS, "--config-file", HERE / "schemathesis.toml", "run", document, "--url", url),
        *("--include-tag", tag, "--no-color", *more),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=desk, env=environment, timeout=RUN, stdin=subprocess.DEVNULL)
    return run.returncode == 0


def guarded(desk):
    """The document of a gateway whose callers must have a token."""
    document = yaml.safe_load(DOCUMENT.read_text())
    for path in document["paths"].values():
        if "lookup" in path.get("post", {}).get("tags", ()):
            path["post"]["security"] = [{"clientToken": []}]
    written = desk / "guarded.json"
    written.write_text(json.dumps(document))
    return written


def main():
    """Both gateways, one after the other."""
    (program,) = sys.argv[1:]
    program = shutil.which(program) or sys.exit(f"{program} is no program")
    program = str(Path(program).resolve())
    # Whoever ends this ends what it started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        with gateway(desk, program) as (callers, operators):
            passed = ask(desk, DOCUMENT, f"http://{callers}", "lookup")
            passed &= ask(desk, DOCUMENT, f"http://{operators}", "admin")
        tokens = desk / "tokens"
        tokens.write_text(f"tester:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
        with gateway(desk, program, f'clients.tokens_file = "{tokens}"\n') as (callers, _operators):
            bearer = ("--header", f"Authorization: Bearer {TOKEN}")
            passed &= ask(desk, guarded(desk), f"http://{callers}/api/open", "lookup", bearer)
    sys.exit(0 if passed else "schemathesis: what the gateway does and what deploy/openapi.yaml says differ")


if __name__ == "__main__":
    main()
