"""The files for containers, checked as far as that is possible without running one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import kubernetes_validate
import pytest
import yaml

from mlproject import cli

DEPLOY = Path(__file__).parents[1] / "deploy"


def checked(program, *words):
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_hadolint_finds_nothing_in_the_dockerfile(tmp_path):
    assert (0, "") == checked("hadolint", DEPLOY / "Dockerfile")
    (tmp_path / "Dockerfile").write_text("FROM python\n")
    assert 1 == checked("hadolint", tmp_path / "Dockerfile")[0]


def test_the_compose_file_follows_the_specification(tmp_path):
    schema = ("--builtin-schema", "vendor.compose-spec")
    assert 0 == checked("check-jsonschema", *schema, DEPLOY / "compose.yaml")[0]
    (tmp_path / "compose.yaml").write_text("services: {one: {imagge: two}}\n")
    assert 1 == checked("check-jsonschema", *schema, tmp_path / "compose.yaml")[0]


def test_the_compose_file_names_only_its_own_services_volumes_and_stages():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    stages = [
        line.split(" AS ")[1]
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("FROM") and " AS " in line
    ]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        assert service.get("build", {}).get("target", stages[0]) in stages
        named = {volume.split(":")[0] for volume in service.get("volumes", ())}
        assert named <= set(compose["volumes"])


KUBERNETES = sorted(
    path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization"
)
API = "1.33"  # of the oldest Kubernetes that is supported upstream
SHORT = {"livenessProbe", "readinessProbe", "startupProbe"}


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def containers():
    """The containers of the files for Kubernetes, with what their pods say."""
    specs = [one.get("spec", {}) for path in KUBERNETES for one in documents(path)]
    pods = [spec["template"]["spec"] for spec in specs if "template" in spec]
    return [
        pytest.param(pod, container, id=container["name"])
        for pod in pods
        for container in pod["containers"]
    ]


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_the_files_for_kubernetes_follow_its_schemas(path):
    for one in documents(path):
        kubernetes_validate.validate(one, API, strict=True)
        wrong = {**one, "sppec": {}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, API, strict=True)


def test_the_kustomization_names_the_files_and_its_images_are_those_of_the_files():
    found = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    others = {"score.yaml"}  # a job is made once for each run
    assert {path.name for path in KUBERNETES} - others == set(found["resources"])
    images = {one.values[1]["image"] for one in containers()}
    assert images == {image["name"] for image in found["images"]}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_puts_the_files_together():
    words = ["kubectl", "kustomize", DEPLOY / "kubernetes"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    kinds = sorted(one["kind"] for one in yaml.safe_load_all(done.stdout))
    assert ["ConfigMap", "Deployment"] == kinds


@pytest.mark.parametrize(("pod", "container"), containers())
def test_a_container_has_no_rights_and_what_it_names_is_there(pod, container):
    own = container["securityContext"]
    assert (True, True, False) == (
        pod["securityContext"]["runAsNonRoot"],
        own["readOnlyRootFilesystem"],
        own["allowPrivilegeEscalation"],
    )
    assert {"cpu", "memory", "ephemeral-storage"} == set(container["resources"]["limits"])
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}  # noqa: S108
    [settings] = documents(DEPLOY / "kubernetes" / "settings.yaml")
    [source] = container["envFrom"]
    assert settings["metadata"]["name"] == source["configMapRef"]["name"]
    for word in container["args"]:
        assert set(re.findall(r"\$\((\w+)\)", word)) <= set(settings["data"])
    assert {"secretKeyRef"} == {key for one in container["env"] for key in one["valueFrom"]}


def commands_of_the_files():
    """Every command line of ours in the files of this folder."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["watch"]
    unit = (DEPLOY / "mlproject-watch.service").read_text().replace("\\\n", "")
    [start] = re.findall(r"^ExecStart=\S+ -m pipelines\.(.*)$", unit, re.MULTILINE)
    found = [compose["command"], compose["healthcheck"]["test"][2:], start.split()]
    for one in containers():
        _, container = one.values
        found.append(container["args"])
        found += [container[name]["exec"]["command"][1:] for name in SHORT & set(container)]
    return found


@pytest.mark.parametrize("words", commands_of_the_files(), ids=lambda words: words[0])
def test_the_command_lines_are_those_of_the_commands(words):
    name, *options = words
    command = cli.main.get_command(click.Context(cli.main), name)
    parser = command.make_parser(click.Context(command))
    given, rest, _ = parser.parse_args([*options])
    assert ([], len(options)) == (rest, len(given))


def test_a_probe_asks_for_the_status_that_the_watch_writes_and_has_time_for_it():
    [(_, watch)] = [one.values for one in containers() if one.values[1]["name"] == "watch"]
    [status] = [word for word in watch["args"] if word.startswith("--status=")]
    for name in SHORT:
        probe = watch[name]
        assert status in probe["exec"]["command"]
        assert 10 <= probe["timeoutSeconds"] <= probe["periodSeconds"]
    assert "--probe=ready" in watch["readinessProbe"]["exec"]["command"]
    assert "--probe=alive" in watch["livenessProbe"]["exec"]["command"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit_and_its_watchdog_is_patient_enough(tmp_path):
    text = (DEPLOY / "mlproject-watch.service").read_text()
    assert "WatchdogSec=20min" in text  # above task_timeout and 300 s
    program = "/opt/mlproject/.venv/bin/python"
    assert program in text
    unit = tmp_path / "mlproject-watch.service"
    unit.write_text(text.replace(program, sys.executable))
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    unit.write_text(text.replace(program, sys.executable).replace("KillMode=", "KilMode="))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "KilMode" in done.stderr
