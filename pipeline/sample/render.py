"""A rendered RGB-D data set in exactly the Washington layout, so that the demo and the tests need no download.

A dozen categories of household solids on a turntable, several objects of each, seen from 30, 45 and 60 degrees as
videos 1, 2 and 4. By design neither camera suffices: some categories share their shape and differ in their surface
(orange and beach ball, soda can and food can, cereal box and wood block), which depth alone cannot show; others share
their paint (mug, bowl, cap, bottle, ...) and differ in shape, which is hard to see in the underexposed frames. Objects
differ in proportions and colours, so a left-out one is new. Depth has the Kinect's holes, steps and noise.
"""

import colorsys
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.washington import EVERY, VIDEOS
from pipeline.datasets.washington_splits import TRIALS_FILE, format_trials
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.files import flush, storage_error, write_atomically
from pipeline.runtime.leases import lease
from pipeline.sample.ray_caster import Colour, Paint, Shot, View, shoot
from pipeline.sample.solids import Solid, box, brim, handle, lathe, union

VERSION = 1  # of the drawing: raised when the same settings give other pixels
SETTINGS_FILE = "sample.json"
ELEVATIONS = dict(zip(VIDEOS, (30.0, 45.0, 60.0), strict=True))  # degrees
TRIALS = 10
_GAMMA = 2.2  # of a screen

Profile = list[tuple[float, float]]


def _arc(radius: float, height: float, start: float, stop: float, count: int, middle: float = 0.0) -> Profile:
    """Points of an ellipse around (0, middle), from angle `start` to `stop`, in degrees above the horizontal."""
    angles = np.radians(np.linspace(start, stop, count))
    return [(float(max(radius * np.cos(a), 0)), float(middle + height * np.sin(a))) for a in angles]


# The solids, in mm; each function draws the proportions from `rng`.


def _ball(rng: np.random.Generator) -> Solid:
    radius, flat = rng.uniform(34, 44), rng.uniform(0.9, 1.0)
    return lathe(_arc(radius, radius * flat, -90, 90, 33, radius * flat))


def _can(rng: np.random.Generator) -> Solid:
    r, h = rng.uniform(30, 37), rng.uniform(88, 125)
    foot, lid = [(r - 5, 0.0), (r, 6.0)], [(r, h - 8), (r - 4, h - 1), (r - 4, h), (r - 6, h), (r - 7, h - 4)]
    return lathe([(0, 0), *foot, *lid, (0, h - 4)])


def _block(rng: np.random.Generator) -> Solid:
    return box(rng.uniform(60, 95), rng.uniform(28, 50), rng.uniform(85, 135))


def _cup(rng: np.random.Generator) -> Solid:
    r, h, flare = rng.uniform(34, 42), rng.uniform(76, 104), rng.uniform(-2, 6)
    wall = [(r - 4, 0.0), (r - 1, 3.0), (r + flare, h - 2), (r + flare - 2, h), (r + flare - 4, h - 2), (r - 5, 8.0)]
    cup = lathe([(0, 0), *wall, (0, 6)])
    return union(
        cup, handle(r + flare / 2 - 1, 0.52 * h, rng.uniform(16, 21), rng.uniform(4, 5.5), rng.uniform(1, 1.35))
    )


def _bowl(rng: np.random.Generator) -> Solid:
    r, h, t = rng.uniform(56, 72), rng.uniform(42, 62), 3.5
    outer, inner = _arc(r, h - 6, -60, 0, 14, h), _arc(r - t, h - 6 - t, 0, -80, 14, h)
    foot = 0.5 * r
    return lathe([(0, 0), (foot, 0), (foot, 4), *outer, *inner, (0, inner[-1][1])])


def _cap(rng: np.random.Generator) -> Solid:
    r, h = rng.uniform(56, 66), rng.uniform(52, 68)
    dome = lathe([(0, 0), (r, 0), (r, 8), *_arc(r, h - 8, 8, 84, 18, 8), (4, h), (4, h + 3), (0, h + 3)])
    return union(dome, brim(r * 0.72, rng.uniform(58, 68), r * rng.uniform(0.78, 0.92), rng.uniform(8, 18)))


def _bottle(rng: np.random.Generator) -> Solid:
    r, h, neck = rng.uniform(27, 35), rng.uniform(135, 175), rng.uniform(11, 14)
    waist = r * rng.uniform(0.84, 1.0)
    body = [(r - 4, 0.0), (r, 5.0), (r, 0.22 * h), (waist, 0.3 * h), (waist, 0.4 * h), (r, 0.48 * h), (r, 0.58 * h)]
    shoulder = [(0.93 * r, 0.66 * h), (0.72 * r, 0.75 * h), (neck, 0.84 * h)]
    return lathe(
        [(0, 0), *body, *shoulder, (neck, 0.9 * h), (neck + 3, 0.9 * h), (neck + 3, h - 1), (neck + 1, h), (0, h)]
    )


def _cone(rng: np.random.Generator) -> Solid:
    r, h = rng.uniform(40, 52), rng.uniform(100, 140)
    return lathe([(0, 0), (r, 0), (r, 2), (6, h - 6), (7, h), (4, h + 5), (0, h + 6)])


def _pot(rng: np.random.Generator) -> Solid:
    r, h = rng.uniform(44, 56), rng.uniform(72, 94)
    rim = [(r - 4, 0.74 * h), (r, 0.74 * h), (r + 2, h - 1), (r - 3, h), (r - 5, 0.78 * h)]
    return lathe([(0, 0), (0.66 * r, 0), *rim, (0.62 * r, 12), (0, 12)])


# The paints. Some are used on several solids, and some solids have several paints.


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    """Converts hue, saturation and value on a screen to linear light."""
    red, green, blue = (channel**_GAMMA for channel in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
    return red, green, blue


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _glaze(rng: np.random.Generator) -> Paint:
    """One plain colour of any hue, or off-white: reveals nothing about the category."""
    hue, plain = float(rng.uniform()), rng.uniform() < 0.25
    body = _hsv(0.1, 0.12, 0.9) if plain else _hsv(hue, float(rng.uniform(0.35, 0.8)), float(rng.uniform(0.35, 0.85)))
    if rng.uniform() < 0.3:
        return Paint("bands", (body, body, _hsv(hue + 0.5, 0.5, 0.8)), float(rng.uniform(9, 16)), 0.3)
    return Paint("plain", (body,), gloss=float(rng.uniform(0.15, 0.5)))


def _peel(rng: np.random.Generator) -> Paint:
    hue = float(rng.uniform(0.05, 0.11))
    return Paint("dots", (_hsv(hue, 0.9, 0.93), _hsv(hue - 0.015, 0.95, 0.72)), 5.0, 0.18, _seed(rng))


def _gores(rng: np.random.Generator) -> Paint:
    hue = float(rng.uniform())
    colours = [_hsv(hue + step, 0.85, 0.85) for step in (0.0, 0.33, 0.66)]
    return Paint("panels", (colours[0], _hsv(0, 0, 0.92), colours[1], _hsv(0, 0, 0.92)), gloss=0.25)


def _print(rng: np.random.Generator) -> Paint:
    hue = float(rng.uniform())
    colours = (_hsv(hue, 0.8, 0.8), _hsv(hue, 0.85, 0.8), _hsv(hue + 0.12, 0.75, 0.9), _hsv(hue + 0.5, 0.7, 0.6))
    return Paint("blocks", colours, float(rng.uniform(14, 24)), 0.15, _seed(rng))


def _wood(rng: np.random.Generator) -> Paint:
    hue, value = float(rng.uniform(0.06, 0.1)), float(rng.uniform(0.55, 0.8))
    return Paint(
        "grain", (_hsv(hue, 0.5, value), _hsv(hue, 0.62, 0.68 * value)), float(rng.uniform(14, 26)), 0.05, _seed(rng)
    )


_METAL: Colour = (0.46, 0.47, 0.5)


def _lacquer(rng: np.random.Generator) -> Paint:
    hue = float(rng.uniform())
    colours = (_hsv(hue, 0.9, 0.75), _hsv(hue, 0.9, 0.75), _hsv(0, 0, 0.92), _hsv(hue + 0.4, 0.8, 0.6))
    return Paint("bands", colours, float(rng.uniform(12, 22)), 0.6, rim=_METAL, band=(0.05, 0.93))


def _label(rng: np.random.Generator) -> Paint:
    hue = float(rng.uniform())
    colours = (_hsv(hue, 0.55, 0.85), _hsv(0.12, 0.25, 0.92))
    return Paint("checker", colours, float(rng.uniform(14, 22)), 0.3, rim=_METAL, band=(0.12, 0.86))


def _party(rng: np.random.Generator) -> Paint:
    hue = float(rng.uniform())
    return Paint("dots", (_hsv(hue, 0.7, 0.8), _hsv(hue + 0.5, 0.6, 0.92)), 16.0, 0.2, _seed(rng))


@dataclass(frozen=True)
class Category:
    """What the objects of a category have in common."""

    name: str
    solid: Callable[[np.random.Generator], Solid]
    paint: Callable[[np.random.Generator], Paint]


CATEGORIES = (
    Category("coffee_mug", _cup, _glaze),
    Category("orange", _ball, _peel),
    Category("beach_ball", _ball, _gores),
    Category("bowl", _bowl, _glaze),
    Category("soda_can", _can, _lacquer),
    Category("food_can", _can, _label),
    Category("cap", _cap, _glaze),
    Category("cereal_box", _block, _print),
    Category("wood_block", _block, _wood),
    Category("water_bottle", _bottle, _glaze),
    Category("flower_pot", _pot, _glaze),
    Category("party_hat", _cone, _party),
)


@dataclass(frozen=True)
class Settings:
    """The settings that determine every pixel of a sample."""

    categories: int
    objects_per_category: int
    views: int
    seed: int
    version: int = VERSION

    def __post_init__(self) -> None:
        if not 2 <= self.categories <= len(CATEGORIES):
            raise UsageError(f"the sample has 2 to {len(CATEGORIES)} categories, not {self.categories}")
        if self.objects_per_category < 2:
            raise UsageError("a split leaves out one object of each category, so there must be at least 2 of each")
        if self.views < 1 or self.seed < 0:
            raise UsageError("the sample needs at least one view per video, and a seed that is not negative")


def draw_object(settings: Settings, category: int, number: int) -> tuple[Solid, Paint]:
    """The solid and paint of object `number` (from 1) of the category at position `category` in `CATEGORIES`."""
    rng = np.random.default_rng([settings.seed, category, number])
    kind = CATEGORIES[category]
    return kind.solid(rng), kind.paint(rng)


def draw_view(
    settings: Settings, category: int, number: int, video: int, turn: int
) -> tuple[View, np.random.Generator]:
    """The camera, turntable and light of view `turn` (from 0) of a video, and the generator of its noise.

    Each frame has its own randomness, so frames can be rendered in any order, or alone.
    """
    film = np.random.default_rng([settings.seed, category, number, video])
    start, lamp = film.uniform(0, 2 * np.pi), (film.uniform(-1.3, 1.3), film.uniform(0.6, 1.2))
    distance, warmth = film.uniform(690, 760), film.uniform(-1, 1)
    rng = np.random.default_rng([settings.seed, category, number, video, turn])
    dim = rng.uniform() < 0.2
    view = View(
        elevation=float(np.radians(ELEVATIONS[video] + rng.normal(0, 0.7))),
        turn=float(start + 2 * np.pi * turn / settings.views),
        distance=float(distance),
        shift=(float(rng.normal(0, 12)), float(rng.normal(0, 12))),
        lamp=(float(lamp[0]), float(lamp[1])),
        exposure=float(rng.uniform(0.08, 0.3) if dim else rng.uniform(0.7, 1.15)),
        warmth=float(warmth),
    )
    return view, rng


def render(
    root: Path,
    *,
    categories: int = 10,
    objects_per_category: int = 4,
    views: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Renders `root/rgbd-dataset`: categories x objects x 3 videos x views frames; the folder appears when complete.

    The frames are numbered 1, 6, 11, ... as in the evaluation set. `testinstance_ids.txt` in the folder holds ten
    trials in the official format, `sample.json` the settings. An existing sample with these settings is left as it
    is.

    Args:
        progress: called after each object with the number done and the total.

    Returns:
        The folder `root/rgbd-dataset`.

    Raises:
        UsageError: a setting is out of range.
        DataError: another data set is in its place; it is never overwritten.
        LeasedError: another process is rendering it.
        StorageError: the disk is full or refuses.
    """
    settings = Settings(categories, objects_per_category, views, seed)
    folder = root / "rgbd-dataset"
    if not folder.exists():
        with lease(folder):
            if not folder.exists():
                _render(settings, folder, progress)
    if settings_of(folder) != asdict(settings):
        raise DataError(f"{folder}: another data set is there", "choose another --root, or move it away")
    return folder


def _render(settings: Settings, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    unfinished = folder.with_name(f".{folder.name}.partial")
    try:
        if unfinished.exists():  # left by a run that was killed
            shutil.rmtree(unfinished)
        total = settings.categories * settings.objects_per_category
        for done in range(total):
            category, number = divmod(done, settings.objects_per_category)
            _render_object(settings, category, number + 1, unfinished)
            if progress is not None:
                progress(done + 1, total)
        write_atomically(unfinished / TRIALS_FILE, format_trials(_trials(settings)))
        write_atomically(unfinished / SETTINGS_FILE, json.dumps(asdict(settings), indent=1) + "\n")
        unfinished.rename(folder)
        flush(folder.parent)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def settings_of(folder: Path) -> dict[str, int] | None:
    """The settings of the sample in a data set's folder, or None if that is not a rendered sample."""
    try:
        settings: dict[str, int] = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return settings


def _trials(settings: Settings) -> Sequence[dict[str, int]]:
    """Ten trials; each category leaves out its objects in its own order, all equally often."""
    rng = np.random.default_rng([settings.seed, 0])
    orders = [1 + rng.permutation(settings.objects_per_category) for _ in range(settings.categories)]
    names = [category.name for category in CATEGORIES]
    return [{names[c]: int(order[trial % len(order)]) for c, order in enumerate(orders)} for trial in range(TRIALS)]


def _render_object(settings: Settings, category: int, number: int, folder: Path) -> None:
    name = CATEGORIES[category].name
    solid, paint = draw_object(settings, category, number)
    object_folder = folder / name / f"{name}_{number}"
    object_folder.mkdir(parents=True)
    for video in VIDEOS:
        for turn in range(settings.views):
            view, rng = draw_view(settings, category, number, video, turn)
            _save(shoot(solid, paint, view, rng), object_folder / f"{name}_{number}_{video}_{1 + EVERY * turn}")


def _save(shot: Shot, stem: Path) -> None:
    """Writes the four files of a frame. Compression is fast, since the noise leaves little to gain."""
    save = partial(_png, stem)
    save("crop", shot.rgb)
    save("depthcrop", shot.depth)
    save("maskcrop", shot.mask)
    stem.with_name(f"{stem.name}_loc.txt").write_text(f"{shot.corner[0]},{shot.corner[1]}\n", encoding="ascii")


def _png(stem: Path, kind: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(stem.with_name(f"{stem.name}_{kind}.png"), compress_level=2)
