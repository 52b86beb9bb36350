"""deploy/Dockerfile: its last stage built by buildah from the program, and the image run as Kubernetes would run it.

The gateway of the shared overlay, with its configuration and its secrets where they would be mounted, in front of an
upstream that speaks TLS; and in front of that the sidecar's, which finds it by a name that a server for names knows.
Each runs as user 65532 in the image's files and no others.
"""

import contextlib
import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import names
from desk import DEPLOY, container, variables

NAME = "localhost/audience-gateway:test"
USER = 65532
TOKEN = "the-token-of-a-test"
CUSTOMER = b'{"audienceUserIdList":[9007199254741007]}'
LOOKUP = "/api/open/api/audience/detail"

# Where the machine has its certificate authorities.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def buildah(desk, *arguments):
    """A command of buildah, with a store of its own and without what a sandbox has not."""
    store = ("--root", desk.folder / "store", "--runroot", desk.folder / "running", "--storage-driver", "vfs")
    return ("buildah", *store, *arguments)


def the_image_is_the_binary_and_the_authorities(desk):
    """The last stage of the Dockerfile is the binary and the certificate authorities, and runs as user 65532."""
    out = desk.folder / "build" / "out"
    authorities = out / AUTHORITIES.relative_to("/")
    authorities.parent.mkdir(parents=True)
    # Those of the machine, and the one that has signed what is met here.
    authorities.write_bytes(AUTHORITIES.read_bytes() + (desk.folder / "ca.pem").read_bytes())
    shutil.copy(desk.program, out / "audience-gateway")
    (desk.folder / "context").mkdir()
    build = ("build", "--isolation", "chroot", "--format", "docker", "--target", "final", "--tag", NAME)
    stage = (
        "--build-context",
        f"build={desk.folder / 'build'}",
        "--file",
        DEPLOY / "Dockerfile",
        desk.folder / "context",
    )
    desk.run(*buildah(desk, *build, *stage))
    desk.cache["names"] = names.bound()
    resolver = desk.cache["names"].getsockname()[0]
    desk.cache["container"] = desk.run(*buildah(desk, "from", "--dns", resolver, NAME)).strip()
    image = json.loads(desk.run(*buildah(desk, "inspect", "--type", "image", NAME)))["Docker"]["config"]
    assert (
        image["User"] == f"{USER}:{USER}" and image["Entrypoint"] == ["/audience-gateway"] and image["Cmd"] == ["serve"]
    )
    assert image["Healthcheck"]["Test"] == ["CMD", "/audience-gateway", "health"]
    assert "GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in image["Env"]
    desk.cache["environment"] = dict(variable.split("=", 1) for variable in image["Env"])
    assert files(desk) == ["audience-gateway", str(AUTHORITIES.relative_to("/"))]


def files(desk):
    """What is in the image."""
    root = Path(desk.run(*buildah(desk, "mount", desk.cache["container"])).strip())
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def without_a_configuration_it_says_what_is_missing(desk):
    """Without a configuration the image ends with 64 and the name of the file that it wants."""
    script = '"$@" 2>&1; echo "status $?"'
    said = desk.run(
        "sh",
        "-c",
        script,
        "sh",
        *map(
            str,
            buildah(desk, "run", "--isolation", "chroot", desk.cache["container"], "--", "/audience-gateway", "serve"),
        ),
    )
    assert "audience-gateway: /etc/audience-gateway/gateway.toml" in said and "status 64" in said, said


def the_shared_gateway_serves_from_the_image(desk):
    """As in the manifests, the shared gateway and the sidecar serve from the image: HTTPS, names, probes, an end."""
    secret = mounted(
        desk, "secret", {"instance-secret": "secret", "tokens": f"crm:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n"}
    )
    with upstream(desk) as address:
        more = {"GATEWAY_UPSTREAM__BASE_URL": f"https://localhost:{address}/api/open"}
        with served(desk, "overlays/shared", more, {"/etc/audience-gateway-secret": secret}) as (callers, operators):
            assert ask(operators, "/livez") == ask(operators, "/readyz") == (200, b"ok\n")
            assert ask(callers, LOOKUP, CUSTOMER)[0] == 401, "without a token"
            status, answer = ask(callers, LOOKUP, CUSTOMER, TOKEN)
            assert status == 200 and len(json.loads(answer)["data"]) == 1, answer
            with names.answering(desk.cache["names"], "audience-gateway.audience-gateway.svc"):
                more = {
                    "GATEWAY_UPSTREAM__BASE_URL": f"http://audience-gateway.audience-gateway.svc:{callers}/api/open"
                }
                with served(desk, "overlays/sidecar", more, {}) as (callers, operators):
                    through = ask(callers, LOOKUP, CUSTOMER, TOKEN)
                    assert through == (200, answer), through
                    assert ask(callers, LOOKUP, CUSTOMER, "another")[0] == 401, "the shared gateway knows who asks"
                    probed(desk, "overlays/sidecar", operators)
    assert files(desk)[0] == "audience-gateway", "it has written nothing beside itself"


@contextlib.contextmanager
def upstream(desk):
    """The simulated upstream behind TLS, which a gateway with the certificate of the desk speaks: its port."""
    with desk.running(
        "simulator", desk.program, "simulate", "--listen", "127.0.0.1:0", "--require-token", "--interval", "50ms"
    ) as said:
        (simulator,) = said(r"http://(\S+?)/")
        folder = desk.folder
        text = (
            'server = { listen = "127.0.0.1:0", admin_listen = "127.0.0.1:0", '
            f'tls = {{ cert = "{folder}/tls.crt", key = "{folder}/tls.key" }} }}\n'
            f'upstream.base_url = "http://{simulator}/api/open"\nlookup = [{{ interval = "50ms" }}]\n'
        )
        with desk.running("upstream", desk.program, "serve", "--config", desk.write("upstream.toml", text)) as said:
            (port,) = said(r'"listen":"127.0.0.1:(\d+)"')
            yield port


@contextlib.contextmanager
def served(desk, overlay, more, mounts):
    """The gateway of an overlay in the image: the ports of its listeners. It is told to end, and must end well."""
    (config,) = [it["data"] for it in desk.rendered(overlay) if it["kind"] == "ConfigMap"]
    gateway = container(desk.one(overlay, "Deployment"))
    name = overlay.split("/")[-1]
    mounts = {"/etc/audience-gateway": mounted(desk, f"{name}-config", config)} | mounts
    # On ports that the kernel chooses, of this machine only.
    more |= {"GATEWAY_SERVER__LISTEN": "127.0.0.1:0", "GATEWAY_SERVER__ADMIN_LISTEN": "127.0.0.1:0"}
    command = in_image(desk, variables(gateway) | more, mounts, ["/audience-gateway", *gateway["args"]])
    with desk.running(name, *command, inside=gateway_below) as said:
        ports = said(r'"listen":"127.0.0.1:(\d+)","admin_listen":"127.0.0.1:(\d+)"')
        runs_as_nobody(said.inside())
        yield ports


def in_image(desk, environment, mounts, command):
    """A command in the image's files, as its user."""
    environment = [f"--env={name}={value}" for name, value in environment.items()]
    volumes = [f"--volume={there}:{here}:ro" for here, there in mounts.items()]
    return buildah(
        desk, "run", "--isolation", "chroot", *environment, *volumes, desk.cache["container"], "--", *command
    )


def mounted(desk, name, content):
    """A folder as a volume of a ConfigMap or a Secret is one: of root's, and readable for the pod's group."""
    folder = desk.folder / "volumes" / name
    for file, text in content.items():
        desk.write(f"volumes/{name}/{file}", text, 0o440)
    for path in (folder, *folder.iterdir()):
        os.chown(path, 0, USER)
    return folder


def gateway_below(process):
    """The gateway that a command of buildah's has started, by its number; the command itself where there is none."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        # Many end while they are looked at.
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rsplit(")", 1)[1].split()[1])
    for number in parents:
        ancestor = number
        while ancestor in parents and ancestor != process.pid:
            ancestor = parents[ancestor]
        if ancestor == process.pid and program_of(number) == b"/audience-gateway":
            return number
    return process.pid


def program_of(number):
    """The first word of a process's command."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0]
    return b""


def runs_as_nobody(number):
    """The process is the image's user, and has no capability."""
    status = Path(f"/proc/{number}/status").read_text()
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert found["Uid"].split() == found["Gid"].split() == [str(USER)] * 4, status
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0, status


def probed(desk, overlay, operators):
    """Every probe's command, in the image, says yes while the gateway is there, and no where it is not."""
    gateway = container(desk.one(overlay, "Deployment"))
    for port, status in ((operators, 0), ("1", 1)):
        environment = variables(gateway) | {"GATEWAY_SERVER__ADMIN_LISTEN": f"127.0.0.1:{port}"}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            command = in_image(desk, environment, {}, gateway[probe]["exec"]["command"])
            said = desk.run("sh", "-c", '"$@" 2>&1; echo "status $?"', "sh", *map(str, command))
            assert f"status {status}" in said, f"{probe}: {said}"


def ask(port, path, body=None, token=None):
    """The status and the body of one answer."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


CHECKS = [
    the_image_is_the_binary_and_the_authorities,
    without_a_configuration_it_says_what_is_missing,
    the_shared_gateway_serves_from_the_image,
]
