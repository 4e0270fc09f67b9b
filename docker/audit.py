"""Checks the lock files against pyproject.toml, and against the advisory database if it can be reached.

    make audit

Every package in a lock file must have one version and sha256 hashes, and satisfy pyproject.toml; this needs no network.
pip-audit then looks up known vulnerabilities. If it is not installed, or its database does not answer, a line says so,
and only the lock files were checked. Exit code 0: nothing was found. 1: something was.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ("cpu", "cuda")
EXTRAS = ("serve",)  # which docker/lock.sh names too
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)"
)
PIP_AUDIT = (sys.executable, "-m", "pip_audit")
_SECONDS = 120  # for one query of the database
_PROBE = ("requests", "2.31.0")  # has known advisories: a database that returns none is not working


class Fault(Exception):
    """Something is wrong with a lock file, or with a package it names."""


@dataclass(frozen=True)
class Pin:
    """A package's version in a lock file, and the hashes of its files."""

    version: Version
    hashes: frozenset[str]


def read_lock(path: Path) -> dict[str, Pin]:
    """Reads a lock file: name -> version and hashes.

    Raises:
        Fault: a line is not `name==version --hash=sha256:...`, or a name occurs twice.
    """
    pins: dict[str, Pin] = {}
    for line in re.sub(r"\s*\\\n\s*", " ", path.read_text()).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise Fault(f"{path}: no pinned version with sha256 hashes: {line[:80]}")
        name = canonicalize_name(match["name"])
        if name in pins:
            raise Fault(f"{path}: {name} occurs twice")
        pins[name] = Pin(Version(match["version"]), frozenset(re.findall(r"sha256:(\w+)", match["hashes"])))
    return pins


def unsatisfied(pins: Mapping[str, Pin], asked: Sequence[str]) -> list[str]:
    """The requirements that a lock file does not satisfy."""
    requirements = [Requirement(text) for text in asked]
    return [
        str(requirement)
        for requirement in requirements
        if (requirement.marker is None or requirement.marker.evaluate())
        and (
            (pin := pins.get(canonicalize_name(requirement.name))) is None
            or not requirement.specifier.contains(pin.version, prereleases=True)
        )
    ]


def check_locks(folder: Path, project: Path) -> dict[str, dict[str, Pin]]:
    """Reads and checks the lock files of both images and of the build.

    Raises:
        Fault: a file is damaged, does not satisfy pyproject.toml, or the images have different versions of a package.
    """
    settings = tomllib.loads(project.read_text())
    project_settings = settings["project"]
    extras = [text for name in EXTRAS for text in project_settings.get("optional-dependencies", {}).get(name, [])]
    asked = {image: [*project_settings["dependencies"], *extras] for image in IMAGES}
    asked["build"] = settings["build-system"]["requires"]
    locks = {name: read_lock(folder / f"requirements-{name}.txt") for name in asked}
    for name, pins in locks.items():
        if missing := unsatisfied(pins, asked[name]):
            raise Fault(
                f"requirements-{name}.txt does not satisfy {', '.join(missing)}: rebuild it with docker/lock.sh"
            )
    cpu, cuda = (locks[name] for name in IMAGES)
    # torch's CPU build is called 2.8.0+cpu if the other is 2.8.0
    both = sorted(cpu.keys() & cuda.keys())
    different = [name for name in both if cpu[name].version.public != cuda[name].version.public]
    if different:
        raise Fault(f"the images have different versions of {', '.join(different)}: rebuild both with docker/lock.sh")
    return locks


def advisories(packages: Iterable[tuple[str, str]], command: Sequence[str]) -> list[str] | None:
    """Looks up the known vulnerabilities of packages, one line each; None if the database cannot be asked.

    Raises:
        Fault: the database does not know a package.
    """
    asked = "".join(f"{name}=={version}\n" for name, version in packages)
    options = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")
    try:
        run = subprocess.run(
            [*command, "--requirement", "/dev/stdin", *options],
            input=asked, capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
        results = json.loads(run.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    if unknown := [result["name"] for result in results if "skip_reason" in result]:
        raise Fault(f"the advisory database does not know {', '.join(unknown)}")
    return [
        f"{package['name']} {package['version']}: {bug['id']}, "
        f"fixed in {', '.join(bug['fix_versions']) or 'no version yet'}"
        for package in results
        for bug in package["vulns"]
    ]


def reachable(command: Sequence[str]) -> bool:
    """Whether the advisory database answers, and reports the advisories of a package that has some."""
    try:
        return bool(advisories([_PROBE], command))
    except Fault:
        return False


def main(command: Sequence[str] = PIP_AUDIT) -> int:
    try:
        locks = check_locks(ROOT / "docker", ROOT / "pyproject.toml")
        hashes = sum(len(pin.hashes) for pins in locks.values() for pin in pins.values())
        packages = sorted({(name, pin.version.public) for pins in locks.values() for name, pin in pins.items()})
        print(f"audit: {len(packages)} packages in {len(locks)} lock files, all pinned, {hashes} hashes")
        if not reachable(command):
            print(
                "audit: pip-audit is not installed, or its database does not answer: vulnerabilities were NOT looked up"
            )
            return 0
        vulnerabilities = advisories(packages, command)
        if vulnerabilities is None:
            raise Fault("pip-audit failed, although it answered before")
    except (Fault, OSError) as fault:
        print(f"audit: {fault}", file=sys.stderr)
        return 1
    for line in vulnerabilities:
        print(f"audit: {line}", file=sys.stderr)
    print(f"audit: {len(vulnerabilities)} known vulnerabilities")
    return 1 if vulnerabilities else 0


if __name__ == "__main__":
    sys.exit(main())
