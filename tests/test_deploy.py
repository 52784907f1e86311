"""The files for containers, checked as far as that is possible without running one."""

import subprocess
import sys
from pathlib import Path

import yaml

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
