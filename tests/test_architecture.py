"""One way: who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = {
    "pipeline": [
        "errors", "options", "processes", "files", "claims", "versions", "interrupts", "state", "schema", "hdf5",
        "shards", "inspection", "manifests", "digits", "datasets", "images", "washington", "trials", "solids", "scene",
        "sample", "cluster",
        "image_store", "preprocess", "archives", "catalogue", "vgg", "features", "units", "extract", "demo",
    ],
    "trainer": [
        "noise", "networks", "distributions", "labels", "factory", "models.bound", "models", "settings", "presets",
        "memory", "data", "limits", "windows", "streaming", "regularisers", "objectives", "evaluation", "runs", "step",
        "training",
        "rivals.clustering", "rivals.rounds", "rivals.svm", "rivals.deep", "rivals", "runner", "parts", "outcomes",
        "tables", "paper", "experiments", "report", "drawing", "generation", "mosaics", "figures", "reproduction",
        "portraits", "gallery", "page", "rendering",
    ],
}  # fmt: skip
# What the trainer may know of stage 1.
FROM_PIPELINE = {"errors", "files", "claims", "versions", "interrupts", "state", "shards", "cluster"}


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT / package).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def rank(package: str, module: str) -> int:
    name = module if module in ORDER[package] else module.split(".")[0]
    return ORDER[package].index(name)


@pytest.mark.parametrize("package", ORDER)
def test_a_module_imports_only_from_those_above_it(package: str) -> None:
    for module, path in modules(package):
        if module == "__init__":
            continue
        own = rank(package, module)
        for name in imports(path):
            if name.startswith(f"{package}.") and (ROOT / f"{name.replace('.', '/')}.py").exists():
                other = name.removeprefix(f"{package}.")
                assert rank(package, other) <= own, f"{package}.{module} imports {name}"


def test_every_module_has_its_place_in_the_order() -> None:
    for package, order in ORDER.items():
        top = {module.split(".")[0] for module, _ in modules(package)} - {"__init__"}
        assert top == {name.split(".")[0] for name in order}


def test_the_stages_meet_in_the_shard_alone() -> None:
    for _, path in modules("pipeline"):
        assert not any(name.split(".")[0] == "trainer" for name in imports(path)), path
    for _, path in modules("trainer"):
        known = {name.split(".")[1] for name in imports(path) if name.startswith("pipeline.")}
        assert known <= FROM_PIPELINE, path


def test_nobody_imports_the_command_line_and_no_model_another() -> None:
    for package in ORDER:
        for _, path in modules(package):
            assert not imports(path) & {"cli", "console"}, path
    models = {path.stem for path in (ROOT / "trainer/models").glob("*.py")} - {"__init__", "bound"}
    for name in models:
        others = {f"trainer.models.{other}" for other in models - {name}}
        assert not imports(ROOT / f"trainer/models/{name}.py") & others, name


def test_rich_is_used_where_commands_show_things_alone() -> None:
    for package in ORDER:
        for _, path in modules(package):
            assert not any(name.split(".")[0] in ("rich", "typer") for name in imports(path)), path
    assert "cli" not in imports(ROOT / "console.py")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, cli\n"
        "sys.argv = ['mmssl', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'h5py', 'numpy', 'sklearn', 'scipy', 'dask', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    for arguments in (["--help"], ["train", "--help"], ["shards", "verify", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


def test_randomness_is_never_global() -> None:
    """Library code draws from generators it was given or made itself."""
    for package in ORDER:
        for _, path in modules(package):
            text = path.read_text()
            for forbidden in ("np.random.seed", "torch.manual_seed(", "np.random.rand", "torch.randn(", "torch.rand("):
                assert forbidden not in text, f"{path}: {forbidden}"
