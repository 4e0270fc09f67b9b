"""Who may import whom.

Every module stands in a room, and a room imports only from itself and from the rooms below it in its column.
The trainer knows two rooms of the pipeline, and the pipeline knows nothing of the trainer.
The commands may use everything, are imported by `cli.py` alone, and alone print with rich and parse with typer.
No model imports another, no modules import one another in a circle, and no Python file is longer than 400 lines.
"""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ROOMS = {  # bottom-up
    "pipeline": ("runtime", "shards", "datasets", "sources", "sample", "images", "features"),
    "trainer": (
        "nn", "models", "settings", "objective", "data", "evaluation", "training", "baselines", "inference", "jobs",
        "reporting", "reproduction", "serving",
    ),
}  # fmt: skip
FOR_THE_TRAINER = ("pipeline.runtime", "pipeline.shards")
FOR_TERMINALS = {"rich", "typer"}
MOST_LINES = 400
HEAVY = {"torch", "h5py", "numpy", "sklearn", "scipy", "dask", "matplotlib"}


def name_of(path: Path) -> str:
    """`trainer/nn/rng.py` is `trainer.nn.rng`, and a package is its `__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, at its top or in a function, whether ours or not."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = inner & MODULES.keys()
            imported |= modules | ({node.module} if modules != inner else set())
    return imported


MODULES = {
    name_of(path): path
    for column in (*ROOMS, "commands")
    for path in (ROOT / column).rglob("*.py")
    if "__pycache__" not in path.parts
} | {name: ROOT / f"{name}.py" for name in ("cli", "mmssl")}
IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def in_column(column: str) -> list[str]:
    """The modules below a package."""
    return sorted(name for name in MODULES if name.startswith(f"{column}."))


def room_of(module: str) -> str:
    return module.split(".")[1]


def outside(module: str) -> set[str]:
    """The top-level packages that a module imports."""
    return {name.split(".")[0] for name in IMPORTS[module]}


def has_a_card(module: str) -> bool:
    """Whether the file of a module ends in a model's card."""
    return "\nCARD = " in MODULES[module].read_text(encoding="utf-8")


@pytest.mark.parametrize("column", ROOMS)
def test_every_module_stands_in_a_room(column: str) -> None:
    assert {path.name for path in (ROOT / column).glob("*.py")} == {"__init__.py"}
    assert {room_of(module) for module in in_column(column)} == set(ROOMS[column])


@pytest.mark.parametrize("column", ROOMS)
def test_a_room_imports_only_from_itself_and_the_rooms_below_it(column: str) -> None:
    rooms = ROOMS[column]
    for module in in_column(column):
        for other in sorted(IMPORTS[module]):
            if other.startswith(f"{column}."):
                assert rooms.index(room_of(other)) <= rooms.index(room_of(module)), f"{module} imports {other}"


def test_the_two_columns_meet_in_the_runtime_and_the_shards() -> None:
    for module in in_column("pipeline"):
        assert "trainer" not in outside(module), module
    for module in in_column("trainer"):
        others = {name for name in IMPORTS[module] if name.split(".")[0] == "pipeline"}
        assert all(name.startswith(FOR_THE_TRAINER) for name in others), f"{module} imports {others}"


def test_the_commands_are_imported_by_cli_alone_and_alone_show_things() -> None:
    for module in (*in_column("pipeline"), *in_column("trainer"), "mmssl"):
        assert not outside(module) & (FOR_TERMINALS | {"commands"}), module
    for module in MODULES:
        assert not outside(module) & {"cli", "mmssl"}, module


def test_two_files_print_with_rich_and_read_no_markup() -> None:
    printing = {module for module in MODULES if "rich" in outside(module)}
    assert printing == {"commands.messages", "commands.progress"}
    for module in printing:
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
        text = ast.unparse(tree)
        assert "from_markup" not in text
        assert "markup=True" not in text
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) in ("Console", "RichHandler", "TextColumn", "super().__init__"):
                options = {option.arg: ast.unparse(option.value) for option in call.keywords}
                literal_table = "title" in options
                assert literal_table or options.get("markup") == "False", f"{module}: {ast.unparse(call)}"


def test_no_model_imports_another() -> None:
    models = {name for name in in_column("trainer.models") if has_a_card(name)}
    assert len(models) > 5
    for module in models:
        assert not IMPORTS[module] & models, module


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {module: others & MODULES.keys() for module, others in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_python_file_is_long() -> None:
    hidden = {path.name for path in ROOT.iterdir() if path.name.startswith(".")} | {"build", "dist"}
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] not in hidden
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long


def test_randomness_is_never_global() -> None:
    """Library code draws from generators it was given or made itself."""
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        for forbidden in ("np.random.seed", "torch.manual_seed(", "np.random.rand", "torch.randn(", "torch.rand("):
            assert forbidden not in text, f"{module}: {forbidden}"


# --- what starts quickly ---------------------------------------------------------------------------------------------


def imported_by(code: str, *arguments: str) -> tuple[str, set[str]]:
    """What a process prints that runs this code, and the heavy packages that it has imported in the end."""
    report = f"\nsys.stderr.write('imported:' + ','.join({HEAVY} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{report}", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    messages, _, heavy = done.stderr.rpartition("imported:")
    assert "Traceback" not in messages
    return done.stdout, set(filter(None, heavy.split(",")))


COMMAND = "import cli\nsys.argv = ['mmssl', *sys.argv[1:]]\ntry: cli.main()\nexcept SystemExit: pass"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["shards", "verify", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    output, heavy = imported_by(COMMAND, *arguments)
    assert "Usage" in output
    assert not heavy


def test_listing_runs_does_not_import_torch(tmp_path: Path) -> None:
    output, heavy = imported_by(COMMAND, "runs", str(tmp_path))
    assert "no runs yet" in output
    assert "torch" not in heavy


def test_import_mmssl_imports_nothing_heavy_and_lists_its_public_names() -> None:
    output, heavy = imported_by("import mmssl\nprint(*dir(mmssl))")
    assert {"Run", "Shard", "evaluate", "train", "write_shard"} <= set(output.split())
    assert not heavy
