"""What a maintainer would ask about a machine, and what is wrong with it: one fact a line, each with what mends it."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime import machine
from pipeline.runtime.errors import Interrupted
from pipeline.runtime.versions import versions

LIBRARIES = ("numpy", "scipy", "h5py", "scikit-learn", "dask", "distributed", "pydantic", "safetensors", "typer")
DRAWING = ("matplotlib", "pillow", "rich")
PACKAGES = ("commands", "data_manifests", "pipeline", "trainer")
_LEAST_MEMORY, _LEAST_DISK = 1 << 30, 1 << 30  # a small data set's training, and its checkpoints
_EAST_ASIAN = (
    "Noto Sans CJK",
    "Noto Sans SC",
    "Source Han Sans",
    "WenQuanYi",
    "Droid Sans Fallback",
    "Unifont",
    "SimHei",
)


@dataclass(frozen=True)
class Fact:
    """One line of the page.

    Attributes:
        name: what it is about.
        value: what is found.
        problem: what is wrong, or None.
        fix: the command that mends it, or None.
    """

    name: str
    value: str
    problem: str | None = None
    fix: str | None = None


def facts(root: Path) -> Iterator[Fact]:
    """Everything about this machine, the installation and the workspace. A check that fails is a problem itself."""
    checks: Sequence[tuple[str, Callable[[], Iterator[Fact]]]] = (
        ("software", software),
        ("device", device),
        ("processor", processor),
        ("memory", memory),
        ("folders", lambda: folders(root)),
        ("fonts", fonts),
        ("data", lambda: data(root)),
    )
    for name, check in checks:
        try:
            yield from check()
        except Interrupted:
            raise
        except Exception as error:  # of any library: the page is for machines on which something is broken
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            yield Fact(name, "cannot be found out", problem, "python -m pip install --force-reinstall .")


def software() -> Iterator[Fact]:
    """Versions, and whether they are new enough and our packages our own."""
    place = Path(machine.__file__).parents[2]
    yield Fact("mmssl", f"{versions()['mmssl']} in {place}", *_installation())
    yield Fact("Python", f"{platform.python_version()} at {sys.executable} on {platform.platform()}")
    yield Fact("torch", _listed(("torch", "torchvision")))
    yield Fact("libraries", _listed(LIBRARIES), *_too_old())
    yield Fact("drawing", _listed(DRAWING))
    yield Fact("text", f"output {sys.stdout.encoding}, file names {sys.getfilesystemencoding()}")


def device() -> Iterator[Fact]:
    """The GPU, or that there is none."""
    import torch

    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        yield Fact("device", f"cpu (torch is built with {built}, and sees no GPU)")
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        size = f"{_size(free)} of {_size(total)} free"
        yield Fact("device", f"{torch.cuda.get_device_name(number)}, CUDA {torch.version.cuda}, {size}")


def processor() -> Iterator[Fact]:
    """Cores, quota and threads."""
    import torch

    usable, quota, asked = machine.cores(), machine.cpu_quota(), os.environ.get("OMP_NUM_THREADS")
    limit = "no quota" if quota is None else f"a quota of {quota:g}"
    yield Fact("cores", f"{usable} usable of {os.cpu_count()} ({limit})")
    value = f"{torch.get_num_threads()} of torch, OMP_NUM_THREADS {asked or 'not set'}"
    if torch.get_num_threads() > usable:
        problem = f"more threads than the {usable} usable cores: they take the time from one another"
        yield Fact("threads", value, problem, f"export OMP_NUM_THREADS={usable}")
    elif asked and not machine.threads_asked():
        problem = f"OMP_NUM_THREADS holds no number from 1 up, but {asked!r}: every library takes its own default"
        yield Fact("threads", value, problem, "unset OMP_NUM_THREADS")
    else:
        yield Fact("threads", value)


def memory() -> Iterator[Fact]:
    """Free memory, and the container's limit."""
    free, limit = machine.free_memory(), machine.memory_limit()
    value = f"{_size(free)} free ({'no limit' if limit is None else f'a limit of {_size(limit)}'})"
    if free < _LEAST_MEMORY:
        yield Fact(
            "memory", value, "less than 1 GB is free", "give the container more memory, or mmssl train --memory-limit"
        )
    else:
        yield Fact("memory", value)


def folders(root: Path) -> Iterator[Fact]:
    """Whether the workspace and the temporary folder can be written to, and their free space."""
    yield _folder("workspace", root, "choose another folder: --root FOLDER, or export MMSSL_ROOT=FOLDER")
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:
        yield Fact("temporary", "none", "no temporary folder can be written to", "export TMPDIR=FOLDER")
    else:
        yield _folder("temporary", temporary, "export TMPDIR=FOLDER")
    cache = _cache(os.environ)
    problem = "none (no HOME)" if cache is None else _refusal(cache)
    advice = "; figures make one of their own each time, which takes seconds: export MPLCONFIGDIR=FOLDER"
    yield Fact("cache", f"{cache or ''} {f'not writable: {problem}{advice}' if problem else 'writable'}".strip())


def fonts() -> Iterator[Fact]:
    """The fonts that figures can use."""
    from matplotlib import font_manager

    names = {font.name for font in font_manager.fontManager.ttflist}
    found = sorted(name for name in names if name.startswith(_EAST_ASIAN))
    asian = found[0] if found else "none for Chinese, Japanese and Korean (for example: apt-get install fonts-noto-cjk)"
    problem = None if names else "matplotlib finds no font at all"
    yield Fact(
        "fonts", f"{len(names)}; {asian}", problem, problem and "python -m pip install --force-reinstall matplotlib"
    )


def data(root: Path) -> Iterator[Fact]:
    """What is in the workspace and in MMSSL_DATA."""
    from pipeline.datasets.catalogue import list_data_sets
    from pipeline.runtime.paths import shared_data

    there = [entry.name for entry in list_data_sets(root) if entry.place is not None]
    yield Fact("data sets", ", ".join(there) or "none yet (`mmssl data list`)")
    shards = len(list((root / "shards").glob("*.h5")))
    runs = len(list((root / "runs").glob("*/settings.json")))
    yield Fact("workspace holds", f"{shards} shards, {runs} runs")
    shared = shared_data()
    if shared and not shared.is_dir():
        yield Fact(
            "MMSSL_DATA", str(shared), "there is no such folder", "export MMSSL_DATA=FOLDER, or unset MMSSL_DATA"
        )
    else:
        yield Fact("MMSSL_DATA", str(shared or "not set"))


def workers(scheduler: str, root: Path) -> Iterator[Fact]:
    """The workers of a Dask scheduler, and what keeps each of them from our work.

    Raises:
        DataError: the scheduler cannot be reached.
    """
    from pipeline.runtime.cluster import ask_cluster
    from pipeline.runtime.workers import WorkerFacts, problem_of

    answers = ask_cluster(scheduler, [root.resolve()] if root.exists() else [])
    yield Fact(
        "scheduler", f"{scheduler}, {len(answers)} workers",
        *(() if answers else ("it has no workers", f"dask worker {scheduler}")),
    )  # fmt: skip
    for address, answer in answers.items():
        value = f"mmssl {answer.mmssl} on {answer.host}" if isinstance(answer, WorkerFacts) else "no answer"
        problem = problem_of(answer, scheduler)
        if problem is None and not isinstance(answer, WorkerFacts):
            problem = ("does not answer", f"start it again: dask worker {scheduler}")
        yield Fact(f"worker {address}", value, *(problem or ()))


def _installation() -> tuple[str, str] | tuple[()]:
    """Another distribution that installed packages of our names over ours."""
    owners = importlib.metadata.packages_distributions()
    others = sorted({owner for name in PACKAGES for owner in owners.get(name, ()) if owner != "mmssl"})
    if not others:
        return ()
    return f"its packages are installed by {', '.join(others)} too", f"python -m pip uninstall {' '.join(others)}"


def _too_old() -> tuple[str, str] | tuple[()]:
    """Libraries that are older than this program needs."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in importlib.metadata.requires("mmssl") or ()]
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return ()
    old = []
    for requirement in needed:
        if requirement.marker is not None:  # of an extra
            continue
        found = versions(requirement.name)[requirement.name]
        if found == "not installed" or not requirement.specifier.contains(found, prereleases=True):
            old.append((f"{requirement.name} {found} ({requirement.specifier} is needed)", str(requirement)))
    if not old:
        return ()
    problem = "; ".join(text for text, _ in old)
    return problem, f"python -m pip install --upgrade {' '.join(repr(text) for _, text in old)}"


def _folder(name: str, path: Path, fix: str) -> Fact:
    """A folder, or the nearest one above it that exists, where it would be made."""
    path = path.absolute()
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    refusal = _refusal(place)
    if refusal:
        return Fact(name, str(path), f"cannot be written to: {refusal}", fix)
    free = shutil.disk_usage(place).free
    value = f"{path}{'' if place == path else ' (not made yet)'}, {_size(free)} free"
    return Fact(name, value, "less than 1 GB is free", fix) if free < _LEAST_DISK else Fact(name, value)


def _refusal(path: Path) -> str | None:
    """Why no file can be written in a folder, or in the nearest one above it; None if one can."""
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _cache(environment: Mapping[str, str]) -> Path | None:
    """Where matplotlib keeps its list of fonts; None without a home."""
    if environment.get("MPLCONFIGDIR"):
        return Path(environment["MPLCONFIGDIR"]).absolute()
    try:
        return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "matplotlib"
    except RuntimeError:  # a user without a name and a home
        return None


def _listed(names: Sequence[str]) -> str:
    found = versions(*names)
    return ", ".join(f"{name} {found[name]}" for name in names)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
