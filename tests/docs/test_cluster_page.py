"""The configurations for many machines can be parsed, and what they name exists.

``make cluster`` uses the one for nginx.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import webtest
import yaml

from kinto_attachment import cli
from tests.support import ROOT
from tests.support.backends import ON_MEMORY
from tests.support.documents import code_blocks

PAGE = "docs/cluster.rst"
MANIFESTS = {
    manifest["kind"]: manifest for manifest in map(yaml.safe_load, code_blocks(PAGE, "yaml"))
}


def pod(manifest: Any) -> Any:
    """The specification of the pods that a manifest makes."""
    spec = manifest["spec"]
    template = spec.get("template") or spec["jobTemplate"]["spec"]["template"]
    return template["spec"]


def test_there_are_all_kinds() -> None:
    assert set(MANIFESTS) == {"Deployment", "CronJob", "Job"}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_each_volume_that_is_mounted_exists(kind: str) -> None:
    found = pod(MANIFESTS[kind])
    (container,) = found["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in found["volumes"]}


@ON_MEMORY
def test_the_probes_get_an_answer(app: webtest.TestApp) -> None:
    (container,) = pod(MANIFESTS["Deployment"])["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        path = container[probe]["httpGet"]["path"]
        app.get(path.removeprefix("/v1"), status=200)


def test_a_server_is_given_the_time_to_stop() -> None:
    (dockerfile,) = code_blocks(PAGE, "dockerfile")
    command = re.findall(r'"([^"]*)"', dockerfile)
    graceful = int(command[command.index("--graceful-timeout") + 1])
    (container,) = pod(MANIFESTS["Deployment"])["containers"]
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    granted = pod(MANIFESTS["Deployment"])["terminationGracePeriodSeconds"]
    assert granted > graceful + int(pause)


@pytest.mark.parametrize("kind", ["CronJob", "Job"])
def test_the_pods_do_all_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MANIFESTS[kind]["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    assert spec["completionMode"] == "Indexed"
    (container,) = pod(MANIFESTS[kind])["containers"]
    (line,) = container["args"]
    shards = []
    for index in range(spec["completions"]):
        program, *arguments = shlex.split(
            line.removeprefix("exec ").replace("$((JOB_COMPLETION_INDEX + 1))", str(index + 1))
        )
        assert program == "kinto-attachment"
        monkeypatch.setattr(
            f"kinto_attachment.commands.{arguments[0]}.run",
            lambda parsed: shards.append(parsed.shard) or 0,
        )
        assert cli.main(arguments) == 0
    assert sorted(shards, key=str) == sorted(set(shards), key=str)
    assert {count for _, count in shards} == {spec["completions"]} == {len(shards)}


def test_the_image_installs_what_the_package_has() -> None:
    (dockerfile,) = code_blocks(PAGE, "dockerfile")
    (extra,) = re.findall(r"/src\[(\w+)\]", dockerfile)
    assert f'"{extra}":' in (ROOT / "setup.py").read_text()
