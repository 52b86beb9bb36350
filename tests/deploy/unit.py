"""deploy/systemd: the unit, as systemd-analyze sees it."""

import re

from desk import DEPLOY, amount, seconds

# What systemd calls "OK" begins below 5; a service that needs the network cannot come below 0.7.
EXPOSURE = 2.0


def the_unit_is_one_and_exposes_little(desk):
    """systemd-analyze has nothing against the unit, and finds it exposed by less than 2 of 10."""
    text = (DEPLOY / "systemd" / "audience-gateway.service").read_text()
    (installed,) = re.findall(r"^ExecStart=(\S+) serve$", text, re.MULTILINE)
    unit = desk.write("audience-gateway.service", text.replace(installed, str(desk.program)))
    # It warns on standard error, and ends with 0, for what it does not know; and of the machine's own units, too.
    said = desk.run("sh", "-c", 'systemd-analyze verify --man=no "$0" 2>&1', unit)
    assert unit.name not in said, said
    worse = desk.write("worse/audience-gateway.service", unit.read_text().replace("DynamicUser=", "DynamicUsr="))
    assert unit.name in desk.run("sh", "-c", 'systemd-analyze verify --man=no "$0" 2>&1', worse), "it does not look"
    security = ("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}")
    exposure = float(re.search(r"exposure level for \S+: ([\d.]+)", desk.run(*security, unit))[1])
    assert exposure < EXPOSURE, exposure


def the_unit_leaves_time_and_memory(desk):
    """The unit waits for longer than the gateway's grace, and its memory is enough for the defaults."""
    text = (DEPLOY / "systemd" / "audience-gateway.service").read_text()
    setting = lambda name: re.search(rf"^{name}=(.+)$", text, re.MULTILINE)[1]  # noqa: E731
    config = desk.check('upstream.base_url = "https://localhost"', {})
    assert seconds(setting("TimeoutStopSec")) >= seconds(config["server"]["shutdown_grace"]) + 5
    cache = 1.1 * amount(config["cache"]["capacity"])
    connections = 24 * 1024 * config["server"]["max_connections"]
    assert int(setting("MemoryMax").removesuffix("M")) << 20 > cache + connections + amount(
        config["server"]["max_buffered"]
    )
    assert int(setting("LimitNOFILE")) >= 2 * config["server"]["max_connections"]
    assert setting("RestartPreventExitStatus") == "64" and setting("ExecReload").endswith("-HUP $MAINPID")


CHECKS = [the_unit_is_one_and_exposes_little, the_unit_leaves_time_and_memory]
