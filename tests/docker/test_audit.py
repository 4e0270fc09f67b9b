"""The lock files as they are, and what the audit says of those that are not as they should be."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
HASH = "--hash=sha256:" + "0a" * 32


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docker_audit", ROOT / "docker" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Lock files of a project that wants `torch>=2.6` and is built with hatchling."""
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling>=1.24"]\n'
        '[project]\ndependencies = ["torch>=2.6", "tomli>=2; python_version < \'3\'"]\n'
    )
    for name, line in {"cpu": "torch==2.8.0+cpu", "cuda": "torch==2.8.0", "build": "hatchling==1.30"}.items():
        (tmp_path / f"requirements-{name}.txt").write_text(f"{line} \\\n    {HASH}\n")
    return tmp_path


def test_the_lock_files_satisfy_the_project(audit: ModuleType) -> None:
    locks = audit.check_locks(ROOT / "docker", ROOT / "pyproject.toml")
    assert {"torch", "torchvision", "dask", "h5py"} <= locks["cpu"].keys() & locks["cuda"].keys()
    assert any(name.startswith("nvidia-") for name in locks["cuda"])
    for pins in locks.values():
        assert all(pin.hashes for pin in pins.values())


def test_a_cpu_build_of_torch_is_the_same_version(audit: ModuleType, folder: Path) -> None:
    locks = audit.check_locks(folder, folder / "pyproject.toml")
    assert locks["cpu"]["torch"].hashes == {"0a" * 32}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cpu", "torch==2.8.0\n", "no pinned version with sha256 hashes"),
        ("cpu", f"torch>=2.8.0 {HASH}\n", "no pinned version"),
        ("cpu", f"torch==2.8.0 {HASH[:-2]}\n", "no pinned version"),
        ("cpu", f"torch @ https://example.org/torch.whl {HASH}\n", "no pinned version"),
        ("cpu", "--extra-index-url https://example.org\n", "no pinned version"),
        ("cpu", f"torch==2.8.0 {HASH}\nTorch==2.8.0 {HASH}\n", "torch occurs twice"),
        ("cpu", f"torch==2.5.0 {HASH}\n", "does not satisfy torch>=2.6"),
        ("cuda", f"numpy==2.0 {HASH}\n", "does not satisfy torch>=2.6"),
        ("build", f"hatchling==1.2 {HASH}\n", "does not satisfy hatchling>=1.24"),
        ("cuda", f"torch==2.9.0 {HASH}\n", "different versions of torch"),
    ],
)
def test_a_lock_file_that_is_not_as_it_should_be_is_told(
    audit: ModuleType, folder: Path, name: str, content: str, says: str
) -> None:
    (folder / f"requirements-{name}.txt").write_text(content)
    with pytest.raises(audit.Fault, match=says):
        audit.check_locks(folder, folder / "pyproject.toml")


def pip_audit(folder: Path, known: dict[str, list[dict[str, object]]], unknown: str = "") -> tuple[str, str]:
    """A command that answers as pip-audit does: what is asked for, with the advisories it knows."""
    script = folder / "pip_audit.py"
    script.write_text(
        f"import json\nknown, unknown = json.loads({json.dumps(known)!r}), {unknown!r}\n"
        "packages = [line.strip().split('==') for line in open('/dev/stdin')]\n"
        "print(json.dumps({'dependencies': [\n"
        "    {'name': name, 'skip_reason': 'not found'} if name == unknown or unknown == 'all' else\n"
        "    {'name': name, 'version': version, 'vulns': known.get(name, [])}\n"
        "    for name, version in packages]}))\n"
    )
    return sys.executable, str(script)


BUG: dict[str, object] = {"id": "PYSEC-1", "fix_versions": ["2.32"]}


def test_a_vulnerable_package_fails(audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = pip_audit(tmp_path, {"requests": [BUG], "torch": [BUG | {"fix_versions": []}]})
    assert audit.main(command) == 1
    messages = capsys.readouterr().err
    assert "PYSEC-1, fixed in 2.32" in messages
    assert "PYSEC-1, fixed in no version yet" in messages


def test_a_package_that_the_database_does_not_know_is_no_good_package(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(pip_audit(tmp_path, {"requests": [BUG]}, unknown="torch")) == 1
    assert "does not know torch" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["knows nothing", "is empty", "is not there"])
def test_without_a_database_the_hashes_are_checked_and_that_is_said(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    command = {
        "knows nothing": pip_audit(tmp_path, {}, unknown="all"),
        "is empty": pip_audit(tmp_path, {}),
        "is not there": ("/no/such/pip-audit",),
    }[kind]
    assert audit.main(command) == 0
    output = capsys.readouterr().out
    assert "all pinned" in output
    assert "NOT looked up" in output
