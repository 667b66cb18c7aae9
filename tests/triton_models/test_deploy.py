"""What an operator deploys: valid by Kubernetes' own schemas, with flags and metrics that a real Triton knows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml

from dcp_sdk import AccessDenied, PrivateClient, Security
from dcp_sdk.serving import ADMIN_KEY_HEADER, TritonServer
from tests.e2e.authority import Authority, Identity
from tests.e2e.tap import port_of, tap
from tests.tiny import ROOT, SIZE, Tiny

DEPLOY = ROOT / "triton_models" / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OPERATOR = DEPLOY / "prometheus-operator.yaml"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def of_kind(kind: str) -> Any:
    (found,) = (document for document in map(load, KUBERNETES) if document.get("kind") == kind)
    return found


@pytest.fixture(scope="module")
def alerts() -> list[dict[str, Any]]:
    _, rules = yaml.safe_load_all(OPERATOR.read_text(encoding="utf-8"))
    return [alert for group in rules["spec"]["groups"] for alert in group["rules"]]


def triton_flags() -> dict[str, list[str]]:
    """Return the flags of each deployment."""
    return {
        "compose": load(DEPLOY / "compose.yaml")["services"]["triton"]["command"][1:],
        "kubernetes": of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"],
        "kserve": load(DEPLOY / "kserve.yaml")["spec"]["predictor"]["model"]["args"],
    }


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_each_object_fits_the_schema_of_kubernetes(path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    document = load(path)
    if document.get("kind") not in (None, "Kustomization"):  # those are no objects of a cluster
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_the_kustomization_names_every_object() -> None:
    objects = {path.name for path in KUBERNETES if load(path).get("kind") not in (None, "Kustomization")}
    assert set(of_kind("Kustomization")["resources"]) == objects


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_them_together() -> None:
    folder = DEPLOY / "kubernetes"
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True, timeout=60)
    built = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert {document["kind"] for document in built} >= {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
    }
    placed = [document for document in built if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in placed} == {"dcp"}
    (pods,) = (document["spec"] for document in built if document["kind"] == "Deployment")
    assert "replicas" not in pods, "the autoscaler's"
    (service,) = (document["spec"] for document in built if document["kind"] == "Service")
    assert service["selector"].items() <= pods["template"]["metadata"]["labels"].items()


def test_a_pod_writes_nowhere_and_is_ready_when_its_model_is() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    model = next(flag.partition("=")[2] for flag in container["args"] if flag.startswith("--load-model="))
    assert container["readinessProbe"]["httpGet"]["path"] == f"/v2/models/{model}/ready"
    (metric,) = of_kind("HorizontalPodAutoscaler")["spec"]["metrics"]
    (rule,) = load(DEPLOY / "kubernetes" / "prometheus-adapter.yaml")["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def access_flags(deployment: str, identity: Identity) -> list[str]:
    """Return a deployment's flags about certificates and keys, with true values; each key is its variable's name."""
    values = {"--grpc-server-cert": str(identity.certificate), "--grpc-server-key": str(identity.key)}
    flags = []
    for flag in triton_flags()[deployment]:
        option, _, value = flag.partition("=")
        if option in values or "ssl" in option or "restricted" in option:
            given = re.sub(r"[$][({](DCP_[A-Z_]*)[^)}]*[)}]", r"\1", value)
            flags.append(f"{option}={values.get(option, given)}")
    return sorted(flags)


@pytest.mark.triton
def test_a_real_triton_takes_the_flags_lets_in_who_has_the_key_and_has_the_metrics(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path, "authority")
    identity, picture = authority.vouch("server"), np.zeros((SIZE, SIZE, 3), np.uint8)
    flags, *others = (access_flags(name, identity) for name in triton_flags())
    assert others == [flags, flags]
    # TritonServer restricts these by itself, in the same words, and no protocol may be restricted twice.
    closed = [flag for flag in flags if "=trace,logging,shared-memory:dcp-key-closed=" in flag]
    admin = [flag for flag in flags if flag.endswith(f"=model-repository:{ADMIN_KEY_HEADER}=DCP_ADMIN_KEY")]
    assert len(closed) == len(admin) == 2
    flags = [flag for flag in flags if flag not in (*closed, *admin)]
    with TritonServer(
        tiny.repository, venv=ROOT / ".venv-triton", extra_flags=flags, metrics=True, admin_key="DCP_ADMIN_KEY"
    ) as server:
        address = server.grpc_address.replace("grpc://", "grpcs://")
        security = Security(ca_file=authority.file, api_key_variable="DCP_KEY")
        monkeypatch.setenv("DCP_KEY", "DCP_KEY")
        with PrivateClient(tiny.bundle, address, device="cpu", security=security) as client:
            assert client.predict(picture).server == address
        monkeypatch.setenv("DCP_KEY", "wrong")
        with pytest.raises(AccessDenied):
            with PrivateClient(tiny.bundle, address, device="cpu", security=security) as client:
                client.predict(picture)
        channel = triton.InferenceServerClient(
            server.grpc_address.removeprefix("grpc://"), ssl=True, root_certificates=str(authority.file)
        )
        with channel as operator:
            with pytest.raises(triton.InferenceServerException, match="restricted"):
                operator.load_model("task_head", headers={"triton-grpc-protocol-dcp-key": "DCP_KEY"})
            operator.load_model("task_head", headers={"triton-grpc-protocol-dcp-key-admin": "DCP_ADMIN_KEY"})
        texts = [path.read_text() for path in (DEPLOY / "grafana" / "dashboard.json", OPERATOR, *KUBERNETES)]
        watched = {name for text in texts for name in re.findall(r"\b(?:nv_\w+|dcp_requests_\w+)", text)}
        assert len(watched) >= 7
        with urllib.request.urlopen(str(server.metrics_address), timeout=10) as answer:
            served = answer.read().decode()
    assert {name for name in watched if f"\n{name}{{" not in served} == set()


def test_who_watches_gets_words(alerts: list[dict[str, Any]]) -> None:
    for alert in alerts:
        assert alert["annotations"].keys() == {"summary"}, "a comma in braces would begin another key"
        assert isinstance(alert["annotations"]["summary"], str)


def test_all_run_the_same_release() -> None:
    files = [DEPLOY / "README.md", DEPLOY.parent / "README.md", *DEPLOY.rglob("*.yaml")]
    found = re.findall(r"tritonserver:(\S+)-py3|newTag: (\S+)-py3", "\n".join(path.read_text() for path in files))
    tags = {tag for pair in found for tag in pair if tag}
    assert len(found) >= 5
    assert len(tags) == 1
    assert f"The image's tag, {tags.pop()}," in (DEPLOY / "README.md").read_text()


@pytest.mark.triton
def test_a_server_that_ends_connections_by_age_fails_no_call(tiny: Tiny) -> None:
    """Devices move to pods that were added, since no connection grows older than the deployment's flags say."""
    ages = [flag for flag in triton_flags()["kubernetes"] if "connection-age" in flag]
    assert len(ages) == 2
    flags = [f"{flag.partition('=')[0]}=300" for flag in ages]
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    with (
        TritonServer(tiny.repository, venv=ROOT / ".venv-triton", extra_flags=flags) as server,
        tap(port_of(server, "grpc")) as wire,
    ):
        with PrivateClient(tiny.bundle, f"grpc://127.0.0.1:{wire.port}", device="cpu") as client:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                client.predict(picture)
            assert client.stats().failures == {}
        assert len(wire.streams) > 4, "connections in turn"


def test_the_dashboard_has_five_numbers_and_the_autoscaler_one_that_prometheus_can_compute(
    alerts: list[dict[str, Any]],
) -> None:
    promql_parser = pytest.importorskip("promql_parser")
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    assert len(dashboard["panels"]) == 5
    (rule,) = load(DEPLOY / "kubernetes" / "prometheus-adapter.yaml")["rules"]["custom"]
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'pod="a"').replace("<<.GroupBy>>", "pod")
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for expression in (query, *panels, *(alert["expr"] for alert in alerts)):
        promql_parser.parse(expression.replace("$__rate_interval", "1m"))
