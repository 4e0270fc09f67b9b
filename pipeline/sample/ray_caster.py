"""A small ray caster and depth sensor: a painted solid on a turntable in front of a Kinect, for the rendered sample.

The solid's distance field is traced for all pixels at once; paint is a pattern in two coordinates of the surface; the
sensor turns exact depth into what structured light would measure. There is no loop over pixels and no global state.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.datasets.washington import CENTRE, FOCAL
from pipeline.sample.solids import Solid

Floats = npt.NDArray[np.float32]
Colour = tuple[float, float, float]  # linear light, 0..1

BASELINE = 75.0  # mm between the Kinect's projector and its camera
FRAME = (640, 480)

Pattern = Literal["plain", "bands", "panels", "checker", "blocks", "dots", "grain"]


@dataclass(frozen=True)
class Paint:
    """A pattern in one or more colours; `gloss` 0..1 is how mirror-like it is, which also blinds the depth sensor."""

    pattern: Pattern
    colours: tuple[Colour, ...]
    scale: float = 12.0  # mm, the pattern's period
    gloss: float = 0.2
    seed: int = 0
    rim: Colour | None = None  # bare metal or plastic outside the printed band
    band: tuple[float, float] = (0.0, 1.0)  # the printed range of the height, as fractions of it


def _noise(u: npt.NDArray[np.int32], v: npt.NDArray[np.int32], seed: int) -> Floats:
    """A pseudorandom number in [0, 1) for every integer cell (u, v)."""
    with np.errstate(over="ignore"):
        mixed = u.astype(np.uint32) * np.uint32(0x9E3779B1) ^ v.astype(np.uint32) * np.uint32(0x85EBCA77)
        mixed = (mixed ^ np.uint32(seed & 0xFFFFFFFF)) * np.uint32(0xC2B2AE3D)
        mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x27D4EB2F)
        mixed ^= mixed >> np.uint32(13)
    noise: Floats = (mixed >> np.uint32(8)).astype(np.float32) / np.float32(2**24)
    return noise


def _albedo(paint: Paint, solid: Solid, p: Floats, n: Floats) -> Floats:
    """The colours [N, 3] at points p [3, N] with normals n [3, N]."""
    if solid.faceted:
        axis = np.abs(n).argmax(axis=0)
        u = np.where(axis == 0, p[1], p[0])
        v = np.where(axis == 2, p[1], p[2])
        turn = u / np.float32(max(solid.high[0], solid.high[1]))
    else:
        angle = np.arctan2(p[1], p[0])
        turn = angle / np.float32(np.pi)
        u, v = angle * solid.high[1], p[2]
    scale = np.float32(paint.scale)
    i, j = np.floor(u / scale).astype(np.int32), np.floor(v / scale).astype(np.int32)
    count = len(paint.colours)
    if paint.pattern == "plain":
        index = np.zeros(u.shape, np.int32)
    elif paint.pattern == "bands":
        index = j % count
    elif paint.pattern == "panels":
        index = np.floor((turn + 1) * np.float32(4)).astype(np.int32) % count
    elif paint.pattern == "checker":
        index = (i + j) % count
    elif paint.pattern == "blocks":
        index = (_noise(i, j, paint.seed) * count).astype(np.int32)
    elif paint.pattern == "dots":
        # One dot per cell, off-centre and of random size.
        du = u / scale - i - 0.3 - 0.4 * _noise(i, j, paint.seed)
        dv = v / scale - j - 0.3 - 0.4 * _noise(i, j, paint.seed + 1)
        index = (du * du + dv * dv < (0.12 + 0.16 * _noise(i, j, paint.seed + 2)) ** 2).astype(np.int32)
    else:
        wave = np.sin(u * np.float32(0.23) + 3 * np.sin(v * np.float32(0.045) + paint.seed % 7))
        mix = (0.5 + 0.5 * np.sin(u / scale * 6 + wave * 2))[:, None].astype(np.float32)
        first, second = (np.asarray(colour, np.float32) for colour in paint.colours[:2])
        blend: Floats = first * mix + second * (1 - mix)
        return blend
    colour: Floats = np.asarray(paint.colours, np.float32)[index]
    if paint.rim is not None:
        level = p[2] / solid.high[2]
        outside = (level < paint.band[0]) | (level > paint.band[1])
        colour[outside] = np.asarray(paint.rim, np.float32)
    return colour


@dataclass(frozen=True)
class View:
    """The position of camera, lamp and object in one frame."""

    elevation: float  # radians above the table
    turn: float  # of the turntable, radians
    distance: float = 720.0  # mm from the camera to the object's centre
    shift: tuple[float, float] = (0.0, 0.0)  # pixels between the object's centre and the frame's
    lamp: tuple[float, float] = (0.6, 0.9)  # azimuth and elevation of the light, radians
    exposure: float = 1.0
    warmth: float = 0.0  # -1 cold .. 1 warm light


@dataclass(frozen=True)
class Shot:
    """A rendered crop, with the content of the official files."""

    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    depth: npt.NDArray[np.uint16]  # [H, W], mm, 0 = missing
    mask: npt.NDArray[np.bool_]  # [H, W]
    corner: tuple[int, int]  # x, y counted from 1, 1


_TABLE, _DISC, _MARK = (np.array(c, np.float32) for c in ((0.62, 0.50, 0.40), (0.72, 0.68, 0.63), (0.70, 0.06, 0.04)))
_WALL = np.array([0.52, 0.62, 0.72], np.float32)
_WALL_AT = -380.0  # mm: behind the turntable's centre
_FAR = 4000.0  # mm: the depth of rays that meet nothing
_TRACE_STEPS = 44  # at most, of sphere tracing
_HIT_DISTANCE = 0.25  # mm from the surface at which a ray has met the solid
_STEP_SHARE = 0.95  # of the distance to the surface, walked per step; below 1 since the fields are approximate


def shoot(solid: Solid, paint: Paint, view: View, rng: np.random.Generator) -> Shot:
    """Renders `solid` and crops the image as the data set does, tightly with a margin."""
    # All coordinates are the turntable's: camera, lamp and wall move around the object.
    ce, se = np.cos(view.elevation), np.sin(view.elevation)
    turned = np.array(
        [[np.cos(view.turn), np.sin(view.turn), 0], [-np.sin(view.turn), np.cos(view.turn), 0], [0, 0, 1]]
    )
    forward, right, down = (turned @ np.array(axis) for axis in ((-ce, 0, -se), (0, 1, 0), (se, 0, -ce)))
    target = np.array([0, 0, 0.5 * solid.high[2]])
    origin = target - view.distance * forward
    centre = (CENTRE[0] + view.shift[0], CENTRE[1] + view.shift[1])

    # The window: the projection of the solid's box, with a margin for the crop.
    corners = np.stack(np.meshgrid(*zip(solid.low, solid.high, strict=True)), axis=-1).reshape(-1, 3) - origin
    z = corners @ forward
    us = centre[0] + FOCAL * (corners @ right) / z
    vs = centre[1] + FOCAL * (corners @ down) / z
    margin = 10
    left, top = max(1, int(us.min()) - margin), max(1, int(vs.min()) - margin)
    u = np.arange(left, min(FRAME[0], int(us.max()) + margin) + 1)
    v = np.arange(top, min(FRAME[1], int(vs.max()) + margin) + 1)
    shape = (len(v), len(u))

    across = ((u - centre[0]) / FOCAL)[None, None, :] * right[:, None, None]
    rays = (forward[:, None, None] + across + ((v - centre[1]) / FOCAL)[None, :, None] * down[:, None, None]).astype(
        np.float32
    )
    rays = rays.reshape(3, -1)  # the parameter along each is the depth that the sensor measures
    start = origin.astype(np.float32)

    depth = np.minimum(_plane(rays, start, np.array([0, 0, 1.0]), 0.0), _plane(rays, start, turned[:, 0], _WALL_AT))
    on_wall = (start[2] + depth * rays[2]) > 0.5
    hit, t = _trace(solid, rays, start)
    depth[hit] = t

    colour, facing, glare = _shade(solid, paint, view, turned, rays, start, depth, hit, on_wall)
    rgb = _photograph(colour.reshape(*shape, 3), view, rng)
    sensed = _sense(depth.reshape(shape), facing.reshape(shape), glare.reshape(shape), rng)
    mask = np.zeros(shape, bool)
    mask.flat[hit] = True

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    spare = [int(rng.integers(3, margin)) for _ in range(4)]
    y0, y1 = max(0, rows[0] - spare[0]), min(shape[0], rows[-1] + 1 + spare[1])
    x0, x1 = max(0, columns[0] - spare[2]), min(shape[1], columns[-1] + 1 + spare[3])
    crop = np.s_[y0:y1, x0:x1]
    return Shot(rgb[crop], sensed[crop], mask[crop], (left + int(x0), top + int(y0)))


def _plane(rays: Floats, start: Floats, normal: npt.NDArray[np.float64], offset: float) -> Floats:
    """The depth at which each ray meets the plane normal . p = offset, or `_FAR` if it does not."""
    n = normal.astype(np.float32)
    towards = n @ rays
    depth = (np.float32(offset) - n @ start) / np.where(np.abs(towards) < 1e-6, np.float32(1e-6), towards)
    return np.where(depth > 0, depth, np.float32(_FAR))


def _trace(solid: Solid, rays: Floats, start: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Indices of the rays that meet the solid, and their depths, by sphere tracing inside the solid's box."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (
            (bound[:, None] - start[:, None]) / rays
            for bound in (solid.low - np.float32(1), solid.high + np.float32(1))
        )
    near, far = np.minimum(first, second).max(axis=0), np.maximum(first, second).min(axis=0)
    alive = np.flatnonzero(near < far)
    t, far, length = near[alive], far[alive], np.sqrt((rays[:, alive] ** 2).sum(axis=0))
    directions = rays[:, alive]
    hits: list[npt.NDArray[np.intp]] = []
    depths: list[Floats] = []
    for _ in range(_TRACE_STEPS):
        x, y, z = (start[axis] + t * directions[axis] for axis in range(3))
        distance = solid.field(x, y, z)
        met = distance < _HIT_DISTANCE
        hits.append(alive[met])
        depths.append(t[met])
        t = t + distance * np.float32(_STEP_SHARE) / length
        going = ~met & (t < far)
        if not going.any():
            break
        alive, t, far, length, directions = alive[going], t[going], far[going], length[going], directions[:, going]
    return np.concatenate(hits), np.concatenate(depths)


def _normals(solid: Solid, p: Floats) -> Floats:
    """The unit gradient [3, N] of the distance at p [3, N], estimated at the corners of a tetrahedron."""
    reach = np.float32(0.8)  # mm
    gradient = np.zeros_like(p)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        k = np.array(corner, np.float32)
        x, y, z = (p[axis] + reach * k[axis] for axis in range(3))
        gradient += k[:, None] * solid.field(x, y, z)
    normals: Floats = gradient / np.maximum(np.sqrt((gradient**2).sum(axis=0)), np.float32(1e-6))
    return normals


def _shade(
    solid: Solid,
    paint: Paint,
    view: View,
    turned: npt.NDArray[np.float64],
    rays: Floats,
    start: Floats,
    depth: Floats,
    hit: npt.NDArray[np.intp],
    on_wall: npt.NDArray[np.bool_],
) -> tuple[Floats, Floats, Floats]:
    """Shades all rays: colour [N, 3] in linear light, cosine between view and normal [N], mirror reflection [N]."""
    azimuth, height = view.lamp
    direction = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    lamp = (turned @ direction).astype(np.float32)
    colour = np.empty((depth.size, 3), np.float32)
    facing, glare = np.ones(depth.size, np.float32), np.zeros(depth.size, np.float32)

    p = start[:, None] + depth * rays
    colour[:] = _WALL * (0.75 + 0.0004 * p[2][:, None])
    ground = np.ones(depth.size, bool)
    ground[hit] = False
    ground &= ~on_wall
    q = p[:, ground]
    radius, angle = np.sqrt(q[0] ** 2 + q[1] ** 2), np.arctan2(q[1], q[0])
    floor = np.where((radius < 130)[:, None], _DISC, _TABLE)
    floor[(radius > 112) & (radius < 122) & (np.mod(angle, np.pi / 3) < 0.22)] = _MARK
    floor[np.abs(radius - 130) < 1.5] *= np.float32(0.6)
    colour[ground] = floor * (0.42 + 0.6 * lamp[2] * _light(solid, q, lamp))[:, None]
    facing[ground] = np.abs(rays[2, ground]) / np.sqrt((rays[:, ground] ** 2).sum(axis=0))

    p, towards = p[:, hit], -rays[:, hit]
    towards /= np.sqrt((towards**2).sum(axis=0))
    n = _normals(solid, p)
    open_sky = np.clip(0.35 + solid.field(*(p + 14 * n)) / np.float32(14) * 0.65, 0.25, 1)
    half = towards + lamp[:, None]
    half /= np.sqrt((half**2).sum(axis=0))
    facing[hit] = np.clip((n * towards).sum(axis=0), 0, 1)
    # The sensor's own light is reflected back where the surface faces it, the lamp's where the half-vector equals n.
    shine = np.clip((n * half).sum(axis=0), 0, 1) ** np.float32(60)
    glare[hit] = np.float32(paint.gloss) * np.maximum(shine, facing[hit] ** np.float32(40))
    lambert = np.clip(lamp @ n, 0, 1)
    light = open_sky * (0.34 + 0.12 * n[2]) + 0.72 * lambert * (0.4 + 0.6 * open_sky)
    colour[hit] = _albedo(paint, solid, p, n) * light[:, None] + np.float32(0.75 * paint.gloss) * shine[:, None]
    return colour, facing, glare


def _light(solid: Solid, q: Floats, lamp: Floats) -> Floats:
    """The share of the lamp's light at points q [3, N] on the ground: 1, down to 0.15 in the solid's soft shadow."""
    lit = np.ones(q.shape[1], np.float32)
    tall = float(solid.high[2])
    for distance in np.linspace(0.1, 1.1, 5) * tall / max(float(lamp[2]), 0.3):
        x, y, z = (q[axis] + np.float32(distance) * lamp[axis] for axis in range(3))
        lit = np.minimum(lit, 0.3 + solid.field(x, y, z) / np.float32(4 + 0.22 * distance))
    return np.clip(lit, 0.15, 1)


def _photograph(colour: Floats, view: View, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Converts linear light [H, W, 3] to 8 bits: white balance, exposure, lens blur, noise, gamma."""
    balance = np.array([1 + 0.12 * view.warmth, 1, 1 - 0.16 * view.warmth], np.float32) * np.float32(view.exposure)
    image: Floats = ndimage.gaussian_filter(colour * balance, (0.65, 0.65, 0), truncate=2.5)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(0.006)
    pixels: npt.NDArray[np.uint8] = (np.clip(image, 0, 1) ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)
    return pixels


def _sense(depth: Floats, facing: Floats, glare: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Turns exact depth [H, W] into the sensor's: ragged edges, noise, steps, and 0 in shadow and blind spots."""
    height, width = depth.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]

    def wander(spread: float) -> Floats:
        """Smooth noise [H, W] of unit variance."""
        noise: Floats = ndimage.gaussian_filter(rng.standard_normal((height, width), np.float32), spread, truncate=2.0)
        return noise * np.float32(2 * np.sqrt(np.pi) * spread)

    rough, soft = wander(1.0), wander(2.5)
    ragged = np.clip(columns + np.rint(rough).astype(np.int64), 0, width - 1)
    disparity = np.float32(FOCAL * BASELINE) / depth[rows, ragged]
    # The projector is on the right, so what a nearer surface hides from it lies to the left of that surface.
    seen = columns - disparity
    shadow = seen > np.minimum.accumulate(seen[:, ::-1], axis=1)[:, ::-1] + 1
    disparity = np.rint((disparity + np.float32(0.05) * (rough + soft)) * 8) / 8  # eighths of a pixel
    measured = np.float32(FOCAL * BASELINE) / disparity
    blind = glare * (1 + np.float32(0.6) * soft) > 0.32
    grazing = facing < 0.12 + 0.05 * rough
    step: Floats = ndimage.maximum_filter(depth, 3) - ndimage.minimum_filter(depth, 3)
    edge = (step > 25) & (soft > 0.7)  # the step in mm; lost only in places
    lost = shadow | blind | grazing | edge
    return np.where(lost, 0, np.rint(measured)).astype(np.uint16)
