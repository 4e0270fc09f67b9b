"""The documents: links that resolve, names of modules that exist, generated files that are up to date."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import cli
from scripts import failing_camera, reference, rooms
from scripts.committed import current
from tests.support.paths import ROOT
from trainer.models.registry import cards

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "results").rglob("README.md"),
    ]
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
PACKAGES = "pipeline|trainer|commands|scripts|benchmarks|tests|docker|data_manifests"
WRITTEN_BY_A_READER = {"trainer/models/poe.py", "pipeline/datasets/wine.py"}  # the examples of docs/extending.md
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(path))


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_resolve(name: str) -> None:
    page = ROOT / name
    for link in links(page):
        if re.match(r"\w+://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_files_and_modules_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for file in re.findall(rf"\b(?:{PACKAGES})/[\w./-]*\.(?:py|toml|sh|yaml|json|txt|sbatch)\b", text):
        assert (ROOT / file).exists() or file in WRITTEN_BY_A_READER, file
    for file in re.findall(r"\b(?:docs|results)/[\w./-]*\.(?:md|svg|json)\b", text):
        assert (ROOT / file).exists(), file
    for dotted in re.findall(rf"\b((?:{PACKAGES})(?:\.\w+)+)\b", text):
        assert exists(dotted) or f"{dotted.replace('.', '/')}.py" in WRITTEN_BY_A_READER, dotted


def exists(dotted: str) -> bool:
    """Whether a dotted name is a package, a module, or something that a module defines."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        rest = parts[count:]
        if path.is_dir() and not rest:
            return True
        module = path.with_suffix(".py")
        if module.exists():
            return (
                not rest or re.search(rf"\b(?:def|class) {rest[0]}\b", module.read_text(encoding="utf-8")) is not None
            )
    return False


def test_generated_files_are_up_to_date() -> None:
    """`python -m scripts.NAME` writes them."""
    made = reference.pages() | {rooms.PICTURE: rooms.draw(), failing_camera.PICTURE: failing_camera.draw()}
    assert [name for name, text in made.items() if not current(name, text)] == []


def test_check_says_which_file_is_out_of_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scripts.rooms", "--check"])
    assert rooms.main() == 0
    monkeypatch.setattr(rooms, "draw", lambda: "another picture")
    assert rooms.main() == 1
    assert "python -m scripts.rooms" in capsys.readouterr().err
    assert (ROOT / rooms.PICTURE).read_text(encoding="utf-8") != "another picture"


def test_every_model_has_a_page_with_its_networks() -> None:
    for card in cards():
        page = ROOT / "docs/models" / (f"{card.name}.md" if card.is_generative else "cotraining.md")
        text = page.read_text(encoding="utf-8").replace(r"\|", "|")
        for column in card.networks.values():
            for name, notation in column.items():
                assert f"| {name} |" in text, f"{page.name}: {name}"
                assert f"`{notation}`" in text, f"{page.name}: {notation}"


def test_every_result_has_a_page_and_a_command() -> None:
    table = (ROOT / "results/README.md").read_text(encoding="utf-8")
    for folder in (path for path in (ROOT / "results").iterdir() if path.is_dir()):
        assert re.match(r"\d{4}-\d{2}-\d{2}-[\w-]+$", folder.name), folder
        assert (folder / "README.md").exists(), folder
        assert (folder / "command.sh").exists(), folder
        assert f"({folder.name}/README.md)" in table, folder


def test_the_shard_of_your_own_data_can_be_written_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/guide/own-data.md").read_text(encoding="utf-8")
    (block,) = (found for found in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "write_shard" in found)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "own-data.md", "exec"), {})
    assert (tmp_path / "mine.h5").exists()


def test_the_reference_names_every_option_as_the_command_line_takes_it() -> None:
    """The page is compared with its generator elsewhere; here with the parser itself."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    for path, command in _click_commands(typer.main.get_command(cli.app), "mmssl"):
        section = page.split(f"## {path}\n")[1].split("\n## ")[0]
        named = set(re.findall(r"`(--?[a-z][a-z-]*)`", "".join(re.findall(r"^\| (`-[^|]*)\|", section, re.M))))
        taken = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts) if flag[0] == "-"}
        assert named == taken - {"--help"}, path


def _click_commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, part in command.commands.items():
        yield from _click_commands(part, f"{path} {name}")
