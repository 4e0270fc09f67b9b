"""The built wheel, in an environment that knows nothing of the checkout, runs the same commands."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel in it; its dependencies are borrowed from this one."""
    pytest.importorskip("build", reason="the wheel cannot be built: python -m build is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    # isolation would download the build backend anew
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (wheel,) = folder.glob("mmssl-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv/bin"


@pytest.mark.slow
def test_the_wheel_runs_the_same_commands_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MMSSL_ROOT")}

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(
        installed / "python",
        "-c",
        "import cli, commands, mmssl, pipeline; print(*(m.__file__ for m in (cli, commands, mmssl, pipeline)))",
    )
    assert all(str(installed.parent) in path for path in where.split())
    assert run(installed / "mmssl", "--version").startswith("mmssl 0.")
    assert "sshmvae-kl" in run(installed / "mmssl", "train", "--help")
    (planned,) = json.loads(run(installed / "mmssl", "train", "sshmvae-kl", "--epochs", 1, "--dry-run"))
    assert planned["settings"]["networks"]["q(a|x)"] == "x-D128BR-D128BR, D32"  # so are the models' cards
    trained = run(installed / "mmssl", "train", "ssmvae", "--epochs", 1)
    assert "accuracy" in trained
    run(installed / "mmssl", "report", "--no-models", "--html", "report.html", "--markdown", "report.md")
    assert "Runs on hm-digits" in (tmp_path / "report.html").read_text()  # the templates are in the wheel
    assert "hm-digits" in run(installed / "mmssl", "shards", "inspect", "workspace/shards/hm-digits.h5")
    manifest = run(
        installed / "python", "-c", "from pipeline.datasets.manifests import load; print(load('mnist').title)"
    )
    assert "MNIST" in manifest
    tables = run(
        installed / "python", "-c", "from trainer.reproduction.printed_numbers import load; print(*load().tables)"
    )
    assert tables.split() == [f"table{k}" for k in range(1, 7)]
