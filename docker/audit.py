"""Holds the lock files against pyproject.toml, and against the advisory database where it can be reached.

    make audit

Every package of a lock file has one version and sha256 hashes, and satisfies what pyproject.toml asks for: without a
network too. pip-audit then asks for known vulnerabilities; where it is not installed, or its database does not answer,
a line says so and the lock files' hashes are what was checked. Exit code 0: nothing found. 1: something was.
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
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)"
)
PIP_AUDIT = (sys.executable, "-m", "pip_audit")
_SECONDS = 120
_PROBE = ("requests", "2.31.0")  # has advisories: a database without them knows nothing


class Fault(Exception):
    """What is wrong with a lock file, or with a package it names."""


@dataclass(frozen=True)
class Pin:
    version: Version
    hashes: frozenset[str]


def read_lock(path: Path) -> dict[str, Pin]:
    """Name -> version and hashes.

    Raises:
        Fault: a line is no `name==version --hash=sha256:...`, or a name comes twice.
    """
    pins: dict[str, Pin] = {}
    for line in re.sub(r"\s*\\\n\s*", " ", path.read_text()).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise Fault(f"{path}: no pinned version with sha256 hashes: {line[:80]}")
        name = canonicalize_name(found["name"])
        if name in pins:
            raise Fault(f"{path}: {name} comes twice")
        pins[name] = Pin(Version(found["version"]), frozenset(re.findall(r"sha256:(\w+)", found["hashes"])))
    return pins


def unsatisfied(pins: Mapping[str, Pin], asked: Sequence[str]) -> list[str]:
    """Those of the requirements that a lock does not satisfy."""
    requirements = [Requirement(text) for text in asked]
    return [
        str(one)
        for one in requirements
        if (one.marker is None or one.marker.evaluate())
        and (
            (pin := pins.get(canonicalize_name(one.name))) is None
            or not one.specifier.contains(pin.version, prereleases=True)
        )
    ]


def check_locks(folder: Path, project: Path) -> dict[str, dict[str, Pin]]:
    """The lock files of both images and of the build.

    Raises:
        Fault: a file is damaged, does not satisfy pyproject.toml, or the images have different versions of a package.
    """
    settings = tomllib.loads(project.read_text())
    asked = dict.fromkeys(IMAGES, settings["project"]["dependencies"])
    asked["build"] = settings["build-system"]["requires"]
    locks = {name: read_lock(folder / f"requirements-{name}.txt") for name in asked}
    for name, pins in locks.items():
        if missing := unsatisfied(pins, asked[name]):
            raise Fault(f"requirements-{name}.txt does not satisfy {', '.join(missing)}: remake it with docker/lock.sh")
    cpu, cuda = (locks[name] for name in IMAGES)
    # torch's CPU build is 2.8.0+cpu where the other is 2.8.0
    both = sorted(cpu.keys() & cuda.keys())
    others = [name for name in both if cpu[name].version.public != cuda[name].version.public]
    if others:
        raise Fault(f"the images have different versions of {', '.join(others)}: remake both with docker/lock.sh")
    return locks


def advisories(packages: Iterable[tuple[str, str]], command: Sequence[str]) -> list[str] | None:
    """Known vulnerabilities of names and versions, one line each; None where nobody can be asked.

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
        found = json.loads(run.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    if unknown := [one["name"] for one in found if "skip_reason" in one]:
        raise Fault(f"the advisory database does not know {', '.join(unknown)}")
    return [
        f"{one['name']} {one['version']}: {bug['id']}, mended in {', '.join(bug['fix_versions']) or 'no version yet'}"
        for one in found
        for bug in one["vulns"]
    ]


def reachable(command: Sequence[str]) -> bool:
    """Whether the advisory database answers, and knows a package that has advisories."""
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
        found = advisories(packages, command)
        if found is None:
            raise Fault("pip-audit failed where it answered before")
    except (Fault, OSError) as fault:
        print(f"audit: {fault}", file=sys.stderr)
        return 1
    for line in found:
        print(f"audit: {line}", file=sys.stderr)
    print(f"audit: {len(found)} known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
