"""The picture of the rooms, drawn from the imports: python -m scripts.rooms [--check]

Left, the floor plan: three columns of rooms, each resting on those it may import from. Right, who imports from whom, as
a matrix: a number says how many files of the row's room import from the column's room. The order of the rooms is the
one that `tests/test_architecture.py` enforces.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scripts.committed import ROOT, write_or_check
from scripts.svg import box, line, picture, text
from tests.test_architecture import ROOMS

PICTURE = "docs/design/rooms.svg"
COLUMNS = {"commands": "violet", "trainer": "blue", "pipeline": "green"}
Imports = dict[str, Counter[str]]  # of a room: how many of its files import from each other room


def main() -> int:
    return write_or_check({PICTURE: draw()}, "scripts.rooms")


def rooms() -> dict[str, int]:
    """Every room's name, such as `trainer.nn` or `commands`, and how many files it has."""
    sizes = {}
    for column in COLUMNS:
        inner = sorted(path.parent for path in (ROOT / column).glob("*/__init__.py"))
        for folder in inner or [ROOT / column]:
            files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            sizes[".".join(folder.relative_to(ROOT).parts)] = len(files)
    return sizes


def imports() -> Imports:
    """Between rooms, at the top of a file or in a function."""
    names = rooms()
    imported: Imports = {name: Counter() for name in names}
    for name in names:
        for path in sorted((ROOT / name.replace(".", "/")).glob("*.py")):
            others = {room for module in _modules(path) if (room := _room(module, names)) is not None}
            imported[name].update(others - {name})
    return imported


def _modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _room(module: str, names: dict[str, int]) -> str | None:
    parts = module.split(".")
    return next((name for name in (".".join(parts[:2]), parts[0]) if name in names), None)


def bottom_up() -> dict[str, list[str]]:
    """The rooms of each column, from the one that needs no other to the one that may use all."""
    return {column: [f"{column}.{room}" for room in ROOMS.get(column, ())] or [column] for column in COLUMNS}


def draw() -> str:
    """The picture's SVG."""
    imported, sizes = imports(), rooms()
    order = bottom_up()
    parts = [*_plan(order, sizes, imported), *_matrix(order, imported)]
    return picture(
        900,
        560,
        "The rooms and their imports",
        "Three columns of rooms: commands, trainer, pipeline. Each room imports only from rooms below it; "
        + "; ".join(
            f"{name} from {', '.join(sorted(others)) or 'nothing'}" for name, others in sorted(imported.items())
        ),
        parts,
    )


def _plan(order: dict[str, list[str]], sizes: dict[str, int], imported: Imports) -> Iterator[str]:
    """The columns of rooms, on one floor."""
    width, height, gap, floor, left = 112, 25, 6, 490, 22
    highest = max(map(len, order.values()))
    yield text(left, 34, "Floor plan", 14, font_weight="600")
    yield text(left, 53, "A room imports from rooms below it and from the", 11, "soft")
    yield text(left, 68, "columns to its right. Number: its files.", 11, "soft")
    for k, (column, names) in enumerate(order.items()):
        x, colour = left + k * (width + 10), COLUMNS[column]
        rises = highest if len(names) == 1 else 1  # a column of one room is as high as the house
        for n, name in enumerate(names):
            tall = rises * (height + gap) - gap
            y = floor - gap - n * (height + gap) - tall
            yield box(x, y, width, tall, f"pale-{colour}", colour)
            yield text(x + 9, y + 17, name.split(".")[-1], 12)
            yield text(x + width - 8, y + 17, str(sizes[name]), 10, "soft", "end")
        face = {"commands": "cli.py", "trainer": "mmssl.py"}.get(column)
        if face:
            top = floor - highest * (height + gap) - 34
            yield box(x + 18, top, width - 36, 23, "card", colour, 11)
            yield text(x + width / 2, top + 15, face, 11, "ink", "middle")
            yield line(x + width / 2, top + 23, x + width / 2, top + 34, colour)
        yield text(x + width / 2, floor + 18, column, 12, colour, "middle", font_weight="600")
    yield line(left, floor, left + 3 * width + 20, floor, "soft", 2)
    taken = {other for name in order["trainer"] for other in imported[name] if other.startswith("pipeline.")}
    words = " and ".join(name.split(".")[1] for name in order["pipeline"] if name in taken)
    yield text(left, floor + 43, f"Of the pipeline, trainer takes {words} alone.", 11, "soft")


def _matrix(order: dict[str, list[str]], imported: Imports) -> Iterator[str]:
    """Who imports from whom: rows from the top of the house to its floor, columns the same."""
    names = [name for column in order.values() for name in reversed(column)]
    left, top, cell = 492, 128, 20
    size = cell * len(names)
    yield text(402, 34, "Who imports from whom", 14, font_weight="600")
    yield text(402, 53, "A row imports from a column. Number: files that do.", 11, "soft")
    for k, name in enumerate(names):
        colour, short = COLUMNS[name.split(".")[0]], name.split(".")[-1]
        yield text(left - 8, top + k * cell + 14, short, 11, colour, "end")
        x, y = left + k * cell + 13, top - 8
        yield text(x, y, short, 11, colour, "start", transform=f"rotate(-55 {x:g} {y:g})")
        yield box(left + k * cell, top + k * cell, cell, cell, "grid", radius=0)
    yield text(
        left, top + size + 25, "A mark below the diagonal would be an import upwards: there is none.", 11, "soft"
    )
    for k in range(len(names) + 1):
        yield line(left, top + k * cell, left + size, top + k * cell, "grid")
        yield line(left + k * cell, top, left + k * cell, top + size, "grid")
    for row, name in enumerate(names):
        for column, other in enumerate(names):
            count = imported[name].get(other, 0)
            if count:
                colour = COLUMNS[other.split(".")[0]]
                x, y = left + column * cell, top + row * cell
                yield box(x + 2, y + 2, cell - 4, cell - 4, f"pale-{colour}", colour, 3)
                yield text(x + cell / 2, y + 14, str(count), 10, "ink", "middle")


if __name__ == "__main__":
    sys.exit(main())
