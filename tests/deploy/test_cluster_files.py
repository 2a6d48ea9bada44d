"""The files of deploy/cluster as those would read them who use them: validated, their settings ours, their users the stream's."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.settings import Settings, load_settings
from storage.stream.servers import server_urls
from tests.deploy.stream_servers import CONFIG, NATS_SERVER, PASSWORDS
from tests.deploy.test_deploy_files import DEPLOY, VARIABLE, run, values_of

CLUSTER = DEPLOY / "cluster"
KUSTOMIZATION = yaml.safe_load((CLUSTER / "kustomization.yaml").read_text())
SERVICES = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["services"]
UNITS = sorted((CLUSTER / "systemd").iterdir())
GIVEN = {
    **PASSWORDS,
    "POSTGRES_PASSWORD": "p",
    "EDGE_SECRET": "0123456789abcdef",
    "EDGE_ADMIN_TOKEN": "",
    "EDGE_DATABASE_URL": "postgresql://clickedge:p@postgres.example.com/clickedge",
}
EDGES, DRAINS = ["edge-0", "edge-1"], ["drain-0", "drain-1"]
SERVERS = ["nats-0", "nats-1", "nats-2"]


def objects() -> list[dict[str, Any]]:
    """All Kubernetes objects that the kustomization names."""
    return [one for name in KUSTOMIZATION["resources"] for one in yaml.safe_load_all((CLUSTER / name).read_text())]


def container_of(kind: str, name: str) -> dict[str, Any]:
    """The container of the workload of that kind and name."""
    [found] = [one for one in objects() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    container: dict[str, Any] = found["spec"]["template"]["spec"]["containers"][0]
    return container


def pod_environment(container: dict[str, Any]) -> dict[str, str]:
    """What the container finds, its secrets and references filled in."""
    found: dict[str, str] = {"EDGE_NODE_ID": "1"}
    if "envFrom" in container:
        [config] = [one for one in KUSTOMIZATION["configMapGenerator"] if "literals" in one]
        found.update(one.split("=", 1) for one in config["literals"])
    for one in container["env"]:
        if "value" in one:
            found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], one["value"])
        elif "secretKeyRef" in one["valueFrom"]:
            found[one["name"]] = GIVEN[one["valueFrom"]["secretKeyRef"]["key"]]
    return found


def service_environment(name: str) -> dict[str, str]:
    """What a service of compose.yaml finds, the variables filled in."""
    environment = SERVICES[name]["environment"]
    return {key: VARIABLE.sub(lambda found: GIVEN[found[1]], value) for key, value in environment.items()}


def settings_of(environment: dict[str, str]) -> Settings:
    """As the command would read them; SettingsFaults says what is wrong."""
    ours = {name: value for name, value in environment.items() if name.startswith("EDGE_")}
    return load_settings({"EDGE_DATA_DIR": "/var/lib/clickedge", "EDGE_NODE_ID": "0", **ours}, None, {})


def check_nats(environment: dict[str, str], name: str) -> None:
    """That the server would start with our file and this environment."""
    given = {key: value for key, value in environment.items() if key.startswith("NATS_")}
    done = subprocess.run(
        [NATS_SERVER, "--config", CONFIG, "-t"], env={"NATS_NAME": name, **given}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    routes = re.findall(r'"nats://route:proute1@([\w.-]+):6222"', environment["NATS_ROUTES"])
    assert len(set(routes)) == 3


def test_compose_is_valid() -> None:
    """The compose specification's schema accepts it, and the example of its environment has every variable."""
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/cluster/compose.yaml")
    asked = set(VARIABLE.findall((CLUSTER / "compose.yaml").read_text()))
    assert set(values_of(CLUSTER / "cluster.env.example")) == asked


@pytest.mark.parametrize("name", EDGES + DRAINS)
def test_edges_and_drains_start_with_the_settings_of_compose(name: str) -> None:
    """Edges replicate and do not drain; each kind comes to the stream as the user that may do its work."""
    settings = settings_of(service_environment(name))
    user = name.partition("-")[0]
    assert server_urls(settings.stream_url) == [f"nats://{user}:p{user}1@{server}:4222" for server in SERVERS]
    assert settings.drains == (0 if user == "edge" else 1)
    assert settings.node_id == (1 if name == "edge-1" else 0)
    assert settings.conversion_durability == ("replicated" if user == "edge" else "disk")


@pytest.mark.parametrize("name", SERVERS)
def test_each_server_of_compose_takes_the_configuration(name: str) -> None:
    """Under its own name, with a volume of its own, to whose folder its store is."""
    environment = service_environment(name)
    assert environment["NATS_NAME"] == name
    check_nats(environment, name)
    assert f"{name}:{environment['NATS_STORE']}" in SERVICES[name]["volumes"]


def test_compose_shows_only_the_edges_to_the_world() -> None:
    """Consoles and Prometheus are bound to this machine; the stream and the database to nothing."""
    published = {name: [port for port in one.get("ports", ()) if "127.0.0.1" not in port] for name, one in SERVICES.items()}
    assert {name: ports for name, ports in published.items() if ports} == {"edge-0": ["8080:8080"], "edge-1": ["8180:8080"]}


def test_compose_mounts_what_is_there_and_scrapes_all() -> None:
    """No misspelt folder; every edge and drain is a target, all else is as in deploy/prometheus/prometheus.yml."""
    mounts = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())}
    assert [mount for mount in mounts if mount.startswith(".") and not (CLUSTER / mount).exists()] == []
    [config] = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["configs"].values()
    targets = ", ".join(f"{name}:8081" for name in EDGES + DRAINS)
    ours = yaml.safe_load(config["content"].replace(targets, "127.0.0.1:8081"))
    assert ours == yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())


def test_kubernetes_takes_the_manifests() -> None:
    """Kubernetes' own schemas accept them, unknown fields refused; the kustomization names all, and what it makes of files."""
    run("kubernetes-validate", "--strict", *(CLUSTER / name for name in KUSTOMIZATION["resources"]))
    assert {CLUSTER / name for name in KUSTOMIZATION["resources"]} == set((CLUSTER / "kubernetes").glob("*.yaml"))
    files = [file for one in KUSTOMIZATION["configMapGenerator"] for file in one.get("files", ())]
    assert [CLUSTER / file for file in files] == [CONFIG]
    [secret] = KUSTOMIZATION["secretGenerator"]
    assert secret["envs"] == ["kubernetes/secrets.env"]
    assert set(values_of(CLUSTER / "kubernetes" / "secrets.env.example")) == set(GIVEN) - {"POSTGRES_PASSWORD"}


def test_pods_start_with_the_settings_that_the_manifests_give() -> None:
    """Edges with their ordinal as number and no drains, drains without a number; the stream's three pods by name."""
    hosts = [f"clickedge-nats-{number}.clickedge-nats:4222" for number in range(3)]
    for kind, name, user, drains in (("StatefulSet", "clickedge", "edge", 0), ("Deployment", "clickedge-drain", "drain", 1)):
        settings = settings_of(pod_environment(container_of(kind, name)))
        assert server_urls(settings.stream_url) == [f"nats://{user}:p{user}1@{host}" for host in hosts]
        assert settings.drains == drains
    [node_id] = [one for one in container_of("StatefulSet", "clickedge")["env"] if one["name"] == "EDGE_NODE_ID"]
    assert node_id["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
    assert container_of("Deployment", "clickedge-drain")["args"] == ["drain"]


def test_each_pod_knows_only_the_passwords_that_it_needs() -> None:
    """Edges not the drains', drains not the edges'; only the servers that of their routes."""
    known = {
        name: set(pod_environment(container_of(kind, name))) & set(PASSWORDS)
        for kind, name in (("StatefulSet", "clickedge"), ("Deployment", "clickedge-drain"), ("StatefulSet", "clickedge-nats"))
    }
    assert known == {
        "clickedge": {"NATS_EDGE_PASSWORD"},
        "clickedge-drain": {"NATS_DRAIN_PASSWORD"},
        "clickedge-nats": set(PASSWORDS),
    }


def test_the_streams_pods_take_the_configuration_and_stay_apart() -> None:
    """Three on three machines, one away at a time, each with a volume that outlives it and is larger than its store."""
    check_nats(pod_environment(container_of("StatefulSet", "clickedge-nats")), "clickedge-nats-0")
    [nats] = [one["spec"] for one in objects() if one["metadata"]["name"] == "clickedge-nats" and one["kind"] == "StatefulSet"]
    apart = nats["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [one["topologyKey"] for one in apart] == ["kubernetes.io/hostname"]
    assert apart[0]["labelSelector"]["matchLabels"] == nats["template"]["metadata"]["labels"]
    assert nats["replicas"] == 3
    assert nats["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    room = nats["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    store = pod_environment(container_of("StatefulSet", "clickedge-nats"))["NATS_MAX_STORE"]
    assert int(store.removesuffix("GB")) * 10**9 < int(room.removesuffix("Gi")) * 2**30
    [budget] = [
        one for one in objects() if one["kind"] == "PodDisruptionBudget" and one["metadata"]["name"] == "clickedge-nats"
    ]
    assert budget["spec"]["maxUnavailable"] == 1


def test_selectors_find_the_pods_and_ports_of_one_kind() -> None:
    """Every service, policy and budget chooses the pods of one workload, and names ports that they have."""
    workloads = [one for one in objects() if one["kind"] in ("StatefulSet", "Deployment")]
    ports = {
        one["metadata"]["name"]: {port["name"] for port in one["spec"]["template"]["spec"]["containers"][0]["ports"]}
        for one in workloads
    }
    for one in objects():
        if one["kind"] not in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            continue
        spec = one["spec"]
        chosen = spec.get("podSelector") or spec["selector"]
        labels = chosen.get("matchLabels", chosen)
        found = [w for w in workloads if labels.items() <= w["spec"]["template"]["metadata"]["labels"].items()]
        assert len(found) == 1, one["metadata"]["name"]
        named = {port["targetPort"] for port in spec.get("ports", ())}
        named |= {port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]}
        assert named <= ports[found[0]["metadata"]["name"]]


@pytest.mark.debian("systemd")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_units_of_a_cluster(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds no fault, and little that the service could do beside its work."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/clickedge/.venv/bin", str(Path(sys.executable).parent)))
    found = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert [line for line in found.stderr.splitlines() if "clickedge" in line] == []
    assert found.returncode == 0, found.stderr
    rated = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(copy)]
    subprocess.run(rated, check=True, capture_output=True)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_units_run_commands_and_flags_that_there_are(unit: Path) -> None:
    """Click's own word for it; each has the time to finish, and is restarted unless a setting is wrong."""
    said = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#"))
    command = said["ExecStart"].split()
    done = subprocess.run(
        [Path(sys.executable).with_name("clickedge"), command[1], "--help"], capture_output=True, text=True, check=True
    )
    assert [flag for flag in command[2:] if flag.startswith("--") and flag not in done.stdout] == []
    assert (said["KillMode"], said["Restart"], said["RestartPreventExitStatus"]) == ("mixed", "always", "2")
    assert int(said["TimeoutStopSec"]) >= 60
