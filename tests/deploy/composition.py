"""deploy/compose.yaml, as docker compose reads it; no engine runs here."""

import json
from pathlib import Path

from desk import DEPLOY


def the_composition_is_one(desk):
    """docker compose takes the composition; every service may do little, and is published to this machine only."""
    services = composed(desk)["services"]
    assert services.keys() == {"gateway", "simulator", "prometheus"}
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert (
            service["security_opt"] == ["no-new-privileges:true"] and service["mem_limit"] and service["pids_limit"]
        ), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        image = service["image"]
        assert ":" in image.split("/")[-1] and not image.endswith(":latest"), image
    for name in ("gateway", "simulator"):
        build = services[name]["build"]
        assert Path(build["context"], build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert composed(desk)["services"]["gateway"]["image"] == services["simulator"]["image"]


def its_gateway_is_configured(desk):
    """The program takes the gateway's configuration, and finds its simulator there."""
    composition = composed(desk)
    gateway, simulator = (composition["services"][name] for name in ("gateway", "simulator"))
    (source,) = [composition["configs"][config["source"]]["file"] for config in gateway["configs"]]
    assert [config["target"] for config in gateway["configs"]] == ["/etc/audience-gateway/gateway.toml"]
    config = desk.check(Path(source).read_text(), gateway["environment"])
    published = {port["target"] for port in gateway["ports"]}
    assert {int(config["server"][name].rsplit(":", 1)[1]) for name in ("listen", "admin_listen")} == published
    command, flag, listen = simulator["command"]
    assert (command, flag) == ("simulate", "--listen")
    assert config["upstream"]["base_url"] == f"http://simulator:{listen.rsplit(':', 1)[1]}/api/open"
    with desk.running("simulator", desk.program, "simulate", "--listen", "127.0.0.1:0") as said:
        said(r"listens on http://\S+/api/open")


def composed(desk):
    """The composition as docker compose resolves it."""
    if "compose" not in desk.cache:
        compose = desk.tool("python").parent.parent.glob("lib/python*/site-packages/compose/docker-compose")
        said = desk.run(next(compose), "-f", DEPLOY / "compose.yaml", "config", "--format", "json")
        desk.cache["compose"] = json.loads(said)
    return desk.cache["compose"]


CHECKS = [the_composition_is_one, its_gateway_is_configured]
