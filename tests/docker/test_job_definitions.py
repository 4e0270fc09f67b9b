"""The example job definitions parse, and say what the entry point, the image and mmssl's exit codes need."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.runtime.errors import DataError, Interrupted, UsageError

DOCKER = Path(__file__).resolve().parents[2] / "docker"
JOBS = DOCKER / "jobs"
FAILED, USAGE, RESUMABLE = DataError.exit_code, UsageError.exit_code, Interrupted.exit_code


def read(name: str) -> Any:
    return json.loads((JOBS / name).read_text())


def test_the_exit_codes_are_those_the_definitions_speak_of() -> None:
    assert (FAILED, USAGE, RESUMABLE) == (1, 2, 75)


def test_kubernetes_tries_again_what_can_go_on_and_nothing_else() -> None:
    job, policy = yaml.safe_load_all((JOBS / "kubernetes.yaml").read_text())
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"], spec["completions"]) == ("Job", "Indexed", 10)
    codes = {
        code: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule and rule["onExitCodes"]["operator"] == "In"
        for code in rule["onExitCodes"]["values"]
    }
    assert codes == {RESUMABLE: "Ignore", FAILED: "FailIndex", USAGE: "FailIndex"}
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    names = {
        rule["onExitCodes"]["containerName"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    }
    assert names == {container["name"]}
    assert pod["restartPolicy"] == "Never", "the API server refuses a podFailurePolicy without it"
    assert "command" not in container, "it would replace the entry point"
    assert pod["securityContext"]["runAsNonRoot"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/workspace", "/tmp"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    label = spec["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= label.items()
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert not {"ingress", "egress"} & policy["spec"].keys(), "a rule would open something"
    assert container["args"][0] == "array"


def test_aws_batch_tries_again_what_can_go_on_and_nothing_else() -> None:
    job = read("aws-batch.definition.json")
    rules = {rule["onExitCode"]: rule["action"] for rule in job["retryStrategy"]["evaluateOnExit"]}
    assert rules == {str(RESUMABLE): "RETRY", str(FAILED): "EXIT", str(USAGE): "EXIT"}
    assert 1 < job["retryStrategy"]["attempts"] <= 10
    container = job["containerProperties"]
    assert container["readonlyRootFilesystem"]
    assert not container["privileged"]
    assert container["user"].split(":")[0] not in ("", "0", "root")
    assert not container["linuxParameters"]["initProcessEnabled"], "mmssl itself is to get the signal"
    assert container["mountPoints"][0]["containerPath"] == "/workspace"
    assert container["mountPoints"][0]["sourceVolume"] == container["volumes"][0]["name"]


def test_aws_batch_trains_a_split_when_its_features_are_there() -> None:
    extract, train = read("aws-batch.extract.json"), read("aws-batch.train.json")
    assert extract["jobDefinition"] == train["jobDefinition"] == read("aws-batch.definition.json")["jobDefinitionName"]
    assert extract["arrayProperties"] == train["arrayProperties"] == {"size": 10}
    assert [dependency["type"] for dependency in train["dependsOn"]] == ["N_TO_N"]


def commands() -> list[list[str]]:
    job, _ = yaml.safe_load_all((JOBS / "kubernetes.yaml").read_text())
    lines = [job["spec"]["template"]["spec"]["containers"][0]["args"]]
    lines.append(read("aws-batch.definition.json")["containerProperties"]["command"])
    return lines + [read(f"aws-batch.{stage}.json")["containerOverrides"]["command"] for stage in ("extract", "train")]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_the_jobs_commands_are_mmssls(arguments: list[str], tmp_path: Path) -> None:
    """Each definition's command goes through the entry point to the real command line, which is asked for help."""
    import typer

    from cli import app

    (tmp_path / "mmssl").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "mmssl").chmod(0o755)
    done = subprocess.run(
        [DOCKER / "entrypoint", *arguments],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "JOB_COMPLETION_INDEX": "4"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    name, *options = done.stdout.splitlines()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, options, resilient_parsing=False)
    assert context.params["split"] == "4"


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A PATH with a queue's commands: `srun` runs, `apptainer` ends with CODE, `scontrol` tells what it was asked."""
    for name, body in {
        "srun": 'exec "$@"',
        "apptainer": 'echo "$@" >"$LOG.apptainer"\nexit $CODE',
        "scontrol": 'echo "$@" >"$LOG.scontrol"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "restarts", "again"), [(0, 0, False), (1, 0, False), (2, 0, False), (75, 0, True), (75, 10, False)]
)
def test_slurm_requeues_what_can_go_on_and_nothing_else(slurm: Path, code: int, restarts: int, again: bool) -> None:
    environment = {
        "PATH": f"{slurm}:/usr/bin:/bin", "LOG": str(slurm / "log"), "CODE": str(code),
        "SLURM_ARRAY_JOB_ID": "123", "SLURM_ARRAY_TASK_ID": "4", "SLURM_RESTART_COUNT": str(restarts),
    }  # fmt: skip
    done = subprocess.run(["bash", JOBS / "slurm.sbatch", "train", "ssmvae"], env=environment, timeout=20, check=False)
    assert done.returncode == code
    asked = slurm / "log.scontrol"
    assert asked.exists() == again
    if again:
        assert asked.read_text() == "requeue 123_4\n"
    run = (slurm / "log.apptainer").read_text()
    assert "--env SLURM_ARRAY_TASK_ID=4" in run
    assert run.endswith(" array train ssmvae\n")


def test_slurms_scripts_parse(tmp_path: Path) -> None:
    script = JOBS / "slurm.sbatch"
    options = [line.split()[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--array=0-9", "--requeue", "--signal=TERM@120"} <= set(options)
    for path in (script, *DOCKER.glob("*.sh")):
        assert subprocess.run(["bash", "-n", path], cwd=tmp_path, env=dict(os.environ), check=False).returncode == 0
