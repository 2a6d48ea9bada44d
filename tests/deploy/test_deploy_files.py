"""The files of deploy/ as those would read them who use them: linted, validated, their settings ours."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.settings import load_settings
from storage.postgres.embedded import socket_parents
from tests.wire.port import serving
from tests.wire.test_tls import server

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
EXAMPLES = {"POSTGRES_PASSWORD": "p", "EDGE_SECRET": "0123456789abcdef", "EDGE_WORKERS": "2"}


VARIABLE = re.compile(r"\$\{([A-Z_]+):[^}]*\}")


def run(program: str, *arguments: str | Path) -> None:
    """A program of the virtual environment; what it says when it refuses."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def objects() -> list[dict[str, Any]]:
    """All Kubernetes objects that the kustomization names."""
    return [one for name in KUSTOMIZATION["resources"] for one in yaml.safe_load_all((KUBERNETES / name).read_text())]


def object_of(kind: str, name: str = "clickedge") -> dict[str, Any]:
    """The one of that kind and name."""
    [found] = [one for one in objects() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def values_of(path: Path) -> dict[str, str]:
    """The names and values of an example of an environment file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def check_settings(environment: dict[str, str]) -> None:
    """That `serve` would start with them: SettingsFaults says what is wrong."""
    load_settings({"EDGE_DATA_DIR": "/var/lib/clickedge", **environment}, None, {})


def test_the_image_is_linted() -> None:
    """hadolint finds nothing in the Dockerfile, not even what it only advises."""
    run("hadolint", "--failure-threshold", "style", "Dockerfile")


def test_the_image_is_made_of_nothing_that_the_repository_does_not_send() -> None:
    """Whatever `make setup` and the start need is let through by .dockerignore."""
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert kept >= {"Makefile", "README.md", "pyproject.toml", "requirements", "edge", "storage", "examples"}


@pytest.mark.parametrize("has_proxy", [False, True])
@pytest.mark.parametrize("has_tls", [False, True])
async def test_the_images_check_asks_as_the_port_is_asked(tmp_path: Path, has_proxy: bool, has_tls: bool) -> None:
    """A node that answers is healthy behind a balancer's header and with TLS too; one that is gone is not."""
    environ = {"PATH": os.environ["PATH"], "EDGE_PROXY_PROTOCOL": "On" if has_proxy else "", "EDGE_TLS_CERT": "x" * has_tls}
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    _, *arguments = json.loads(dockerfile.partition("HEALTHCHECK")[2].partition(" CMD ")[2].partition("\n")[0])

    async def is_healthy(port: int) -> bool:
        environ["EDGE_PORT"] = str(port)
        asking = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environ, stderr=subprocess.DEVNULL)
        return await asking.wait() == 0

    async with serving(tmp_path, has_proxy=has_proxy, tls=server() if has_tls else None) as port:
        assert await is_healthy(port.number)
    assert not await is_healthy(port.number)


def test_compose_is_valid_and_its_settings_are_ours() -> None:
    """The compose specification's schema accepts it; the edge would start with its environment."""
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    environment = services["edge"]["environment"]
    check_settings({name: VARIABLE.sub(lambda found: EXAMPLES[found[1]], value) for name, value in environment.items()})
    asked = {name for name, value in EXAMPLES.items() if value} | {"GRAFANA_PASSWORD"}
    assert set(values_of(DEPLOY / "compose.env.example")) == asked


def test_compose_shows_only_the_public_port_to_the_world() -> None:
    """Console, Prometheus and Grafana are bound to this machine; the database to nothing."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    published = {port for service in services.values() for port in service.get("ports", ())}
    assert {port for port in published if not port.startswith("127.0.0.1:")} == {"8080:8080"}


def test_compose_mounts_what_is_there() -> None:
    """A folder that compose would make empty is a folder that we misspelt."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", ())]
    missing = [mount for mount in mounts if mount.startswith("./") and not (DEPLOY / mount).exists()]
    assert missing == []


def test_kubernetes_takes_the_manifests() -> None:
    """Kubernetes' own schemas accept them, unknown fields refused."""
    run("kubernetes-validate", "--strict", *(KUBERNETES / name for name in KUSTOMIZATION["resources"]))


def test_a_pod_starts_with_the_settings_that_the_manifests_give() -> None:
    """The generated config map and secret, and the ordinal as node id, are settings that `serve` takes."""
    [config] = KUSTOMIZATION["configMapGenerator"]
    [secret] = KUSTOMIZATION["secretGenerator"]
    assert secret["envs"] == ["secrets.env"]
    example = values_of(KUBERNETES / "secrets.env.example") | {"EDGE_SECRET": EXAMPLES["EDGE_SECRET"]}
    check_settings({**dict(one.split("=", 1) for one in config["literals"]), **example, "EDGE_NODE_ID": "1"})


def test_each_node_keeps_its_number_and_its_journal() -> None:
    """The id comes from the ordinal, the volume stays whatever happens, no autoscaler is there to strand one."""
    spec = object_of("StatefulSet")["spec"]
    [container] = spec["template"]["spec"]["containers"]
    [node_id] = [one for one in container["env"] if one["name"] == "EDGE_NODE_ID"]
    assert node_id["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert {one["kind"] for one in objects()} & {"HorizontalPodAutoscaler", "Deployment"} == set()


def test_a_pod_has_time_to_end_in_order() -> None:
    """Out of the balancers, requests in hand, the drain: 10 + 0.5 + 10 + 30 s and what PostgreSQL takes."""
    spec = object_of("StatefulSet")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    wait_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    probe = container["readinessProbe"]
    assert wait_s > probe["periodSeconds"] * probe["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= wait_s + 10 + 30 + 30


def test_services_and_policies_find_the_pods() -> None:
    """Every selector names labels that the pods have, every port one that the container has."""
    template = object_of("StatefulSet")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    for one in objects():
        if one["kind"] == "Service":
            assert one["spec"]["selector"].items() <= labels
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports
        elif one["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            chosen = one["spec"].get("selector") or one["spec"]["podSelector"]
            assert chosen["matchLabels"].items() <= labels
    assert object_of("StatefulSet")["spec"]["serviceName"] in {
        one["metadata"]["name"] for one in objects() if one["kind"] == "Service" and one["spec"].get("clusterIP") == "None"
    }


def test_compose_scrapes_as_the_tested_configuration_does() -> None:
    """Its Prometheus differs from deploy/prometheus/prometheus.yml in the node's address alone."""
    [config] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["configs"].values()
    ours = yaml.safe_load(config["content"].replace("edge:8081", "127.0.0.1:8081"))
    assert ours == yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())


@pytest.mark.debian("systemd")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds no fault, and little that the service could do beside its work."""
    for unit in (DEPLOY / "systemd").iterdir():
        text = unit.read_text().replace("/opt/clickedge/.venv/bin", str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(text)
    found = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert [line for line in found.stderr.splitlines() if "clickedge" in line] == []
    assert found.returncode == 0, found.stderr
    rated = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(tmp_path / "clickedge.service")]
    subprocess.run(rated, check=True, capture_output=True)


def test_the_unit_gives_the_supervisor_the_time_that_it_needs() -> None:
    """KillMode spares the children the first signal, and the stop outlasts requests, drain and checkpoint."""
    lines = (DEPLOY / "systemd" / "clickedge.service").read_text().splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert (said["KillMode"], said["Restart"], said["TimeoutStopSec"]) == ("mixed", "always", "90")
    check_settings({"EDGE_DATA_DIR": said["Environment"].removeprefix("EDGE_DATA_DIR=")})


def test_commands_outside_the_unit_reach_its_embedded_database() -> None:
    """`clickedge report` runs outside, where the service's own /tmp is not: the socket is in its runtime directory."""
    lines = (DEPLOY / "systemd" / "clickedge.service").read_text().splitlines()
    assert {"PrivateTmp=yes", "RuntimeDirectory=clickedge", "RuntimeDirectoryMode=0700"} <= set(lines)
    environment = {"RUNTIME_DIRECTORY": "/run/clickedge:/run/other", "XDG_RUNTIME_DIR": "/run/user/1000"}
    assert socket_parents(environment, is_root=False) == ["/run/clickedge", "/tmp", "/run/user/1000"]
    assert socket_parents({}, is_root=False) == ["/tmp", "/var/tmp"]
    assert socket_parents(environment, is_root=True) == ["/run", "/tmp"]
