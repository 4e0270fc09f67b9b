"""What the Dockerfile and the compose file must keep to, whatever else changes in them."""

import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands.serve import serve

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
Stage = dict[str, Any]


def stages() -> dict[str, Stage]:
    """Name -> base and instructions, each a word in capitals and the rest, continuation lines joined."""
    text = "\n".join(line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    by_name: dict[str, Stage] = {"": {"base": None, "steps": []}}  # "": what stands before the first stage
    name = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            by_name[name] = {"base": base, "steps": []}
        else:
            by_name[name]["steps"].append((word, rest))
    return by_name


def inherited(name: str, instruction: str) -> list[str]:
    """What a stage has of an instruction, its bases' first."""
    by_name = stages()
    arguments = [rest for word, rest in by_name[name]["steps"] if word == instruction]
    base = by_name[name]["base"]
    return (inherited(base, instruction) if base in by_name else []) + arguments


IMAGES = ("cpu", "cuda")


def test_both_images_are_there_on_a_base_that_is_an_argument() -> None:
    by_name = stages()
    assert set(IMAGES) < set(by_name)
    ((word, default),) = by_name[""]["steps"]
    assert (word, default.split("=")[0]) == ("ARG", "BASE")
    assert re.search(r":\d[\w.-]+$", default), "the default base has a version"
    bases = {stage["base"] for name, stage in by_name.items() if name}
    assert bases <= {"${BASE}", *by_name}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_user_that_is_not_root_and_gets_signals(image: str) -> None:
    user = inherited(image, "USER")[-1]
    assert all(part.isdecimal() and int(part) > 0 for part in user.split(":")), "runAsNonRoot asks for a number"
    (entry,) = inherited(image, "ENTRYPOINT")
    assert json.loads(entry) == ["/usr/local/bin/mmssl-entrypoint"]
    assert isinstance(json.loads(inherited(image, "CMD")[-1]), list)
    assert inherited(image, "STOPSIGNAL") == ["SIGTERM"]
    assert inherited(image, "EXPOSE") == [str(inspect.signature(serve).parameters["port"].default)]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_takes_its_packages_alone_from_the_stage_that_installs_them(image: str) -> None:
    copies = inherited(image, "COPY")
    assert f"--from=packages-{image} /opt/mmssl /opt/mmssl" in copies
    runs = inherited(image, "RUN")
    assert not any("pip" in run for run in runs), "pip stays in the stages that are left behind"


def test_what_is_installed_is_locked_and_runs_no_code_of_its_own() -> None:
    installs = [
        command
        for stage in stages().values()
        for word, rest in stage["steps"]
        if word == "RUN"
        for command in rest.split("&&")
        if re.search(r"\bpip install\b", command)
    ]
    assert len(installs) == 5
    for command in installs:
        assert "--no-deps" in command
        assert ("--require-hashes" in command and "--only-binary :all:" in command) or "--no-index" in command


def test_a_step_that_fails_ends_the_build() -> None:
    """Commands are joined by && alone: an image format may drop SHELL, and with it `sh -e`."""
    for stage in stages().values():
        for word, rest in stage["steps"]:
            assert word != "SHELL"
            if word == "RUN":
                assert ";" not in re.sub(r"\{[^}]*;\s*\}", "", rest)
                assert "||" not in rest


def test_nothing_is_fetched_unseen_and_nothing_secret_is_in_it() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    words = {word for stage in stages().values() for word, _ in stage["steps"]}
    assert "ADD" not in words
    assert not re.search(r"\b(curl|wget|git clone|apt-get)\b", text)
    names = [rest for stage in stages().values() for word, rest in stage["steps"] if word in ("ARG", "ENV")]
    assert not re.search(r"(?i)secret|token|passw|_key", " ".join(names))


def test_the_context_is_what_the_wheel_is_made_of() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*", "what is not named stays out: data, runs, .git"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    for name in packaged:
        assert name in let_in or (name.endswith(".py") and "*.py" in let_in), f"{name} is in the wheel"
    copied = re.findall(r"docker/[\w.-]+", (DOCKER / "Dockerfile").read_text())
    for path in set(copied) - {"docker/Dockerfile", "docker/lock.sh"}:
        assert (ROOT / path).is_file()
        assert path in let_in or re.fullmatch(r"docker/requirements-\w+\.txt", path)


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text()))


def test_every_service_is_as_closed_as_it_can_be() -> None:
    services = compose()["services"]
    assert set(services) == {"scheduler", "worker", "job", "offline"}
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["user"].split(":")[0]) > 0
        assert "ports" not in service
        assert "privileged" not in service
        assert service["volumes"][0]["target"] == "/workspace", "one workspace for all"
        assert service["build"]["target"] == "${MMSSL_TARGET:-cpu}"
        assert set(service["build"]["args"]) == {"BASE", "TORCH_INDEX"}
    users = {service["user"] for service in services.values()} | {inherited("cpu", "USER")[-1]}
    assert len(users) == 1


def test_a_service_has_no_network_or_one_without_a_way_out() -> None:
    settings = compose()
    assert all(network["internal"] for network in settings["networks"].values())
    for name, service in settings["services"].items():
        assert service.get("network_mode") == "none" or set(service["networks"]) <= set(settings["networks"]), name
    assert settings["services"]["offline"]["network_mode"] == "none"


def test_the_services_commands_are_dasks() -> None:
    """The options of the cluster's services are there in the Dask that is installed."""
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    for name, command in (("scheduler", scheduler), ("worker", worker)):
        dask, which, *options = compose()["services"][name]["entrypoint"]
        assert (dask, which) == ("dask", name)
        command.make_context(name, list(options), resilient_parsing=False)
