"""deploy/kubernetes: what kubectl makes of it, by its form, by its security, and whether its parts fit each other."""

import json
import os

import yaml
from desk import DEPLOY, amount, container, seconds, variables

OVERLAYS = ("overlays/shared", "overlays/sidecar")
ALL = ("base", *OVERLAYS)

# The oldest Kubernetes with native sidecars, and the newest that kubernetes-validate knows.
VERSIONS = ("1.29", "1.37")

# Measured, see deploy/README.md: what a gateway takes when idle, and for each connection that is kept alive.
IDLE, CONNECTION = 8 << 20, 24 << 10


def every_overlay_is_what_kubernetes_takes(desk):
    """kubectl kustomize renders the base and every overlay, and kubernetes-validate --strict takes what comes out."""
    kinds = {overlay: sorted(it["kind"] for it in desk.rendered(overlay)) for overlay in ALL}
    shared = (
        "ConfigMap Deployment Namespace NetworkPolicy PodDisruptionBudget Service Service ServiceAccount ServiceMonitor"
    )
    assert kinds["overlays/shared"] == shared.split(), kinds
    assert kinds["overlays/sidecar"] == "ConfigMap Deployment ServiceAccount".split(), kinds
    for overlay in ALL:
        name = overlay.split("/")[-1]
        path = desk.folder / "rendered" / f"{name}.yaml"
        for version in VERSIONS:
            said = desk.run(desk.tool("kubernetes-validate"), "--strict", "-k", version, path)
            passed = sum(line.startswith("INFO") and " passed " in line for line in said.splitlines())
            unknown = kinds[overlay].count("ServiceMonitor")
            assert passed == len(kinds[overlay]) - unknown, said


def the_service_monitor_is_what_the_operator_takes(desk):
    """The ServiceMonitor satisfies the operator's own schema."""
    monitors = json.dumps([it for it in desk.rendered("overlays/shared") if it["kind"] == "ServiceMonitor"])
    file = desk.write("monitors.json", monitors)
    script = os.path.join(os.path.dirname(__file__), "servicemonitor.mjs")
    with file.open() as stdin:
        desk.run("node", script, desk.node_modules, stdin=stdin)


def trivy_finds_nothing(desk):
    """trivy has nothing against the manifests, rendered, and nothing against the Dockerfile."""
    for overlay in ALL:
        desk.rendered(overlay)
    config = (desk.tool("trivy"), "config", "--quiet", "--skip-check-update", "--cache-dir", desk.folder / "trivy")
    desk.run(*config, "--exit-code", "1", desk.folder / "rendered")
    desk.run(*config, "--exit-code", "1", "deploy/Dockerfile")
    # And it is not because it did not look.
    text = (desk.folder / "rendered" / "shared.yaml").read_text()
    assert "readOnlyRootFilesystem: true" in text
    worse = desk.write(
        "worse/shared.yaml", text.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    )
    assert "AVD-KSV-0014" in desk.run(*config, worse), "trivy does not see a writable root"


def pods_can_do_nothing(desk):
    """The gateway's container may do nothing: another user than root, nothing to write, no capability, no account."""
    for overlay in ALL:
        workload = desk.one(overlay, "Deployment")
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
        security = container(workload)["securityContext"]
        assert security["runAsUser"] == security["runAsGroup"] == 65532
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True and security["allowPrivilegeEscalation"] is False
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(mount["readOnly"] is True for mount in container(workload)["volumeMounts"])


def shared_is_one_gateway_and_reachable(desk):
    """The shared gateway is one, never two; services, policy, budget and monitor are about its pod and its ports."""
    workload = desk.one("overlays/shared", "Deployment")["spec"]
    assert workload["replicas"] == 1 and workload["strategy"] == {"type": "Recreate"}
    labels = workload["template"]["metadata"]["labels"]
    of_pod = lambda selector: selector and selector.items() <= labels.items()  # noqa: E731
    assert of_pod(workload["selector"]["matchLabels"])
    budget = desk.one("overlays/shared", "PodDisruptionBudget")["spec"]
    assert of_pod(budget["selector"]["matchLabels"]) and budget["maxUnavailable"] == 1
    policy = desk.one("overlays/shared", "NetworkPolicy")["spec"]
    assert of_pod(policy["podSelector"]["matchLabels"]) and policy["policyTypes"] == ["Ingress", "Egress"]
    gateway = container(desk.one("overlays/shared", "Deployment"))
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports.keys() == {"http", "admin"}
    assert all(rule["from"] for rule in policy["ingress"]), "nobody in particular may call"
    services = {it["metadata"]["name"]: it for it in desk.rendered("overlays/shared") if it["kind"] == "Service"}
    for name, port in (("audience-gateway", "http"), ("audience-gateway-admin", "admin")):
        spec = services[name]["spec"]
        assert of_pod(spec["selector"]) and [it["targetPort"] for it in spec["ports"]] == [port], name
    monitor = desk.one("overlays/shared", "ServiceMonitor")["spec"]
    selected = [
        name
        for name, it in services.items()
        if monitor["selector"]["matchLabels"].items() <= it["metadata"].get("labels", {}).items()
    ]
    assert selected == ["audience-gateway-admin"] and [it["port"] for it in monitor["endpoints"]] == ["admin"]
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        assert gateway[probe]["httpGet"] == {"path": path, "port": "admin"} and "exec" not in gateway[probe], probe


def the_sidecar_is_native_and_only_for_its_pod(desk):
    """The sidecar is an init container that goes on, gates the application, and has no port that others reach."""
    pod = desk.one("overlays/sidecar", "Deployment")["spec"]["template"]
    (gateway,) = pod["spec"]["initContainers"]
    assert gateway["name"] == "gateway" and gateway["restartPolicy"] == "Always"
    assert [it["name"] for it in pod["spec"]["containers"]] == ["application"]
    assert "ports" not in gateway and "lifecycle" not in gateway
    for probe in ("startupProbe", "readinessProbe"):
        assert gateway[probe]["exec"]["command"] == ["/audience-gateway", "health"], probe
    assert gateway["livenessProbe"]["exec"]["command"] == ["/audience-gateway", "health", "--live"]
    config = resolved(desk, "overlays/sidecar")
    for listener in ("listen", "admin_listen"):
        assert config["server"][listener].startswith("127.0.0.1:"), listener
    # The shared gateway lets this pod in, by name and by its network policy, and answers before the sidecar gives up.
    policy = desk.one("overlays/shared", "NetworkPolicy")["spec"]
    callers = policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert callers.items() <= pod["metadata"]["labels"].items()
    service = desk.one("overlays/shared", "Service", "audience-gateway")
    host = f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc/"
    assert config["upstream"]["base_url"].startswith(host) and service["spec"]["ports"][0]["port"] == 80
    shared = resolved(desk, "overlays/shared")
    assert seconds(config["upstream"]["request_timeout"]) > seconds(shared["lookup"][0]["timeout"])
    # Else a Service that selects the shared gateway's pods would find the application's.
    assert (
        not desk.one("overlays/shared", "Deployment")["spec"]["selector"]["matchLabels"].items()
        <= pod["metadata"]["labels"].items()
    )


def resolved(desk, overlay, more=None):
    """The configuration of an overlay's gateway, as `check` prints it, with files of the desk for secrets."""
    workload = desk.one(overlay, "Deployment")
    (config,) = [it for it in desk.rendered(overlay) if it["kind"] == "ConfigMap"]
    volumes = workload["spec"]["template"]["spec"]["volumes"]
    assert [it["configMap"]["name"] for it in volumes if it["name"] == "config"] == [config["metadata"]["name"]]
    environment = variables(container(workload)) | (more or {})
    if "/audience-gateway-secret" in str(config["data"]):
        environment |= secrets(desk)
    return desk.check(config["data"]["gateway.toml"], environment)


def secrets(desk):
    """The variables that name files of the desk in the place of those that would be mounted."""
    tokens = desk.write("secret/tokens", f"application:{'0' * 64}\n")
    secret = desk.write("secret/instance-secret", "secret")
    return {
        "GATEWAY_CLIENTS__TOKENS_FILE": str(tokens),
        "GATEWAY_UPSTREAM__CREDENTIALS__INSTANCE_SECRET_FILE": str(secret),
    }


def configurations_fit_their_pods(desk):
    """Every configuration is one that the program takes, and fits its pod: grace, memory, ports, mounted files."""
    for overlay in ALL:
        workload = desk.one(overlay, "Deployment")
        gateway, config = container(workload), resolved(desk, overlay)
        server = config["server"]
        grace = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace >= seconds(server["shutdown_grace"]) + 5, overlay
        needed = IDLE + 1.1 * amount(config["cache"]["capacity"]) + CONNECTION * server["max_connections"]
        needed += amount(server["max_buffered"]) + amount(config["upstream"]["max_response"])
        limit = amount(gateway["resources"]["limits"]["memory"])
        assert needed <= limit <= 2 * needed, (
            f"{overlay} needs up to {needed / 2**20:.0f} MiB and has {limit / 2**20:.0f}"
        )
        assert gateway["resources"]["requests"].keys() == gateway["resources"]["limits"].keys() == {"cpu", "memory"}
        mounts = {mount["mountPath"] for mount in gateway["volumeMounts"]}
        assert os.path.dirname(variables(gateway)["GATEWAY_CONFIG"]) in mounts
        if overlay == "overlays/shared":
            ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
            assert (
                server["listen"] == f"0.0.0.0:{ports['http']}" and server["admin_listen"] == f"0.0.0.0:{ports['admin']}"
            )
            text = next(it for it in desk.rendered(overlay) if it["kind"] == "ConfigMap")["data"]["gateway.toml"]
            for file in ("tokens", "instance-secret"):
                assert f'"/etc/audience-gateway-secret/{file}"' in text and "/etc/audience-gateway-secret" in mounts, (
                    file
                )


def images_are_of_this_version(desk):
    """The manifests and the composition name the image of the version that is here."""
    version = desk.run(desk.program, "--version").split()[-1]
    images = [container(desk.one(overlay, "Deployment"))["image"] for overlay in ALL]
    images += [it["image"] for it in yaml.safe_load((DEPLOY / "compose.yaml").read_text()).values() if "image" in it]
    assert len(images) == 4 and all(image.endswith(f"audience-gateway:{version}") for image in images), images


def tls_is_a_component(desk):
    """With the component for TLS the shared gateway has a certificate, mounted, that the program takes."""
    there = (desk.folder / "with-tls").resolve()
    relative = lambda part: os.path.relpath(f"deploy/kubernetes/{part}", there)  # noqa: E731
    text = f"resources: [{relative('overlays/shared')}]\ncomponents: [{relative('components/tls')}]\n"
    overlay = str(desk.write("with-tls/kustomization.yaml", text).parent)
    workload = desk.one(overlay, "Deployment")
    desk.run(
        desk.tool("kubernetes-validate"), "--strict", "-k", VERSIONS[-1], desk.folder / "rendered" / "with-tls.yaml"
    )
    (port,) = desk.one(overlay, "Service", "audience-gateway")["spec"]["ports"]
    assert (port["port"], port["appProtocol"], port["targetPort"]) == (443, "https", "http"), port
    assert desk.one(overlay, "Service", "audience-gateway-admin")["spec"]["ports"][0]["port"] == 9090
    told = {name: value for name, value in variables(container(workload)).items() if "TLS" in name}
    mounts = {mount["mountPath"] for mount in container(workload)["volumeMounts"]}
    assert sorted(told) == ["GATEWAY_SERVER__TLS__CERT", "GATEWAY_SERVER__TLS__KEY"]
    assert {os.path.dirname(path) for path in told.values()} <= mounts
    there = {name: str(desk.folder / os.path.basename(path)) for name, path in told.items()}
    assert resolved(desk, overlay, there)["server"]["tls"]["cert"] == str(desk.folder / "tls.crt")


CHECKS = [
    every_overlay_is_what_kubernetes_takes,
    the_service_monitor_is_what_the_operator_takes,
    trivy_finds_nothing,
    pods_can_do_nothing,
    shared_is_one_gateway_and_reachable,
    the_sidecar_is_native_and_only_for_its_pod,
    configurations_fit_their_pods,
    images_are_of_this_version,
    tls_is_a_component,
]
