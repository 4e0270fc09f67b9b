"""Folders of frames at random: good and bad files of every kind, in folders as people name and nest them."""

from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.support.odd_pictures import BAD, GOOD_COLOUR, GOOD_DEPTH, spoil, write_colour, write_depth

COLOUR_FOLDERS = ("rgb", "RGB", "Color", "colour_images", "image")
DEPTH_FOLDERS = ("depth", "Depth", "aligned_depth_to_color", "depth_raw")


@dataclass(frozen=True)
class Files:
    """The two files of a frame: a mode and suffixes, and what is wrong with them, if anything."""

    mode: str
    colour: str
    depth: str
    bad_colour: str | None
    bad_depth: str | None

    @property
    def good(self) -> bool:
        return self.bad_colour is None and self.bad_depth is None

    @property
    def gone(self) -> bool:
        """Whether there is no such frame at all."""
        return self.bad_colour == self.bad_depth == "missing"

    @property
    def usable(self) -> bool:
        """Whether it is a row of own pictures, which may lack a camera."""
        return {self.bad_colour, self.bad_depth} <= {None, "missing"} and not self.gone

    def write(self, colour: Path, depth: Path) -> None:
        """Writes them to paths without suffix."""
        for path, suffix, bad in ((colour, self.colour, self.bad_colour), (depth, self.depth, self.bad_depth)):
            path.parent.mkdir(parents=True, exist_ok=True)
            place = path.with_name(path.name + suffix)
            if path == colour:
                write_colour(place, self.mode)
            else:
                write_depth(place)
            if bad is not None:
                spoil(place, bad, colour=path == colour)


@st.composite
def files(draw: st.DrawFn) -> Files:
    mode = draw(st.sampled_from(sorted(GOOD_COLOUR)))
    bad = st.sampled_from([None] * 12 + list(BAD))
    return Files(
        mode, draw(st.sampled_from(GOOD_COLOUR[mode])), draw(st.sampled_from(GOOD_DEPTH)), draw(bad), draw(bad)
    )


GOOD = Files("RGB", ".png", ".png", None, None)
numbers = st.tuples(st.sampled_from(["cup", "7_up can"]), st.integers(1, 2), st.integers(1, 3), st.integers(0, 7))


@dataclass(frozen=True)
class Layout:
    """Where a person's own pictures lie: folders above and around a label's, a camera's folder each, and padding."""

    above: str
    colour: str
    depth: str
    pad: int

    def places(self, root: Path, label: str, number: int) -> tuple[Path, Path]:
        """The paths of a row's two pictures, without suffixes."""
        stem, folder = f"{number:0{self.pad}d}", root / self.above / label
        return folder / self.colour / stem, folder / self.depth / stem

    def id(self, label: str, number: int) -> str:
        """The row's id."""
        return f"{self.above}/{label}/{number:0{self.pad}d}".removeprefix("/")


layouts = st.builds(
    Layout,
    st.sampled_from(["", "table", "day 1/Müsli/shelf", "a/b/c/d/e/f"]),
    st.sampled_from(COLOUR_FOLDERS),
    st.sampled_from(DEPTH_FOLDERS),
    st.integers(1, 6),
)


def clutter(folder: Path) -> None:
    """What systems and people leave in folders."""
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._cup_1_1_1_crop.png", "notes.txt"):
        (folder / name).write_bytes(b"\0")
    (folder / "__MACOSX").mkdir()
    (folder / "up").symlink_to(folder)
    for hidden in (".cache", "@eaDir"):
        GOOD.write(folder / hidden / "cup" / "rgb" / "0001", folder / hidden / "cup" / "depth" / "0001")
