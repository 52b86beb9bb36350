"""Checks deploy/: the manifests, the unit, the composition, and the image, which is built and started.

Usage: run.py PROGRAM NODE_MODULES, with the Python beside which the tools are, from the root of the checkout. PROGRAM
is statically linked. All that is started ends with this.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import composition
import image
import manifests
import tls
import unit
from desk import Desk


def main():
    """One thing after another, in the order in which a mistake is found soonest."""
    program, node_modules = sys.argv[1:]
    program = Path(shutil.which(program) or sys.exit(f"{program} is no program")).resolve()
    # Whoever ends this ends what it started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder), program, Path(node_modules).resolve())
        tls.write(desk)
        checks = [*manifests.CHECKS, *unit.CHECKS, *composition.CHECKS]
        # Whose files a mounted secret's are, and port 53, is root's to say.
        if os.geteuid() == 0:
            checks += image.CHECKS
        else:
            print("deploy: this is not run by root: the image is not built")
        for check in checks:
            print(f"deploy: {check.__doc__.splitlines()[0]}", flush=True)
            try:
                check(desk)
            except subprocess.CalledProcessError as error:
                sys.exit(f"{error}\n{error.stdout or ''}\n{error.stderr or ''}")
    print(f"{len(checks)} passed, 0 failed")


if __name__ == "__main__":
    main()
