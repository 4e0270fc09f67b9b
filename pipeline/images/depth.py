"""Turns depth crops into network inputs: pure functions on arrays, without files or loops over pixels.

The order is fill, then encode, then resize, with every step but the last at the crop's own resolution. The paper
mentions the resize first; since the resize copies single pixels, the two orders differ only if a crop is shrunk, and
then filling first is safer: sampling a raw crop can skip the only valid pixels of a region. It also makes "nearest" a
distance on the sensor, gives surface normals their true geometry, and costs less on small crops.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.datasets.washington import CENTRE, FOCAL
from pipeline.images.resize import SIZE, Bytes, T, _sources, resize_depth
from pipeline.runtime.errors import UsageError

Depth = npt.NDArray[np.uint16 | np.float32]
Floats = npt.NDArray[np.float32]
DepthEncoding = Literal["jet", "normals", "raw"]
DEPTH_ENCODINGS: tuple[DepthEncoding, ...] = get_args(DepthEncoding)
# The window of a surface normal: pixels -_REACH, -_REACH + _STRIDE, ..., _REACH around it in both directions.
_REACH, _STRIDE = 4, 2
_SAME_SURFACE = 0.03  # neighbours whose depth differs by a larger share belong to another surface
_RIDGE = 0.5  # squared pixels, added to the window's sums of squares


def _fill(values: npt.NDArray[T], valid: npt.NDArray[np.bool_]) -> npt.NDArray[T]:
    """Replaces invalid values of [H, W] or [H, W, C] by the value at the nearest valid pixel, if there is one."""
    filled = values.copy()
    if valid.all() or not valid.any():
        return filled
    # The holes' bounding box plus one pixel: the valid pixel nearest to a hole is adjacent to one, so it lies inside.
    rows, columns = (np.flatnonzero((~valid).any(axis=axis)) for axis in (1, 0))
    box = (slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2))
    holes = ~valid[box]
    nearest = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
    rows, columns = nearest.reshape(2, -1)[:, np.flatnonzero(holes)]
    filled[box][holes] = filled[box][rows, columns]
    return filled


def fill_holes(depth: Depth) -> Depth:
    """Replaces every missing value (0) of [H, W] by the nearest valid one, by Euclidean distance in pixels.

    Valid pixels keep their value. If there is no valid pixel, there is nothing to fill with: the zeros stay, and
    `depth_flaw` reports it.
    """
    return _fill(depth, depth > 0)


def depth_flaw(depth: Depth) -> str | None:
    """Why a depth crop carries no shape, or None; the caller logs this with the frame's name.

    Such crops still have a defined encoding. The functions here do not log, since a worker's log is easily lost.
    """
    valid = depth[depth > 0]
    if valid.size == 0:
        return "every depth value is missing"
    if min(depth.shape) == 1:
        return f"the crop is {depth.shape[1]} x {depth.shape[0]}, one pixel wide"
    if valid.min() == valid.max():
        return f"every valid depth value is {valid[0]:g}" + (" mm" if depth.dtype == np.uint16 else "")
    return None


def scale_depth(depth: Depth) -> Bytes:
    """Scales [H, W] without holes to 0 at the nearest value and 255 at the farthest, linearly, rounded half up.

    A constant image (including one that is all missing) has no extent and becomes 0 everywhere. Whole numbers give the
    same result in either type.
    """
    if depth.dtype.kind == "f":
        values = depth.astype(np.float64)
        nearest, span = values.min(), values.max() - values.min()
        if not span:
            return np.zeros(depth.shape, np.uint8)
        scaled: Bytes = np.floor(((values - nearest) * (2 * 255) + span) / (2 * span)).astype(np.uint8)
        return scaled
    near, far = int(depth.min()), int(depth.max())
    extent = far - near
    if extent == 0:
        return np.zeros(depth.shape, np.uint8)
    levels = ((depth.astype(np.uint32) - near) * (2 * 255) + extent) // (2 * extent)  # 65535 * 510 fits into 32 bits
    return levels.astype(np.uint8)


def _jet_table() -> Bytes:
    """The classic jet colours [256, 3], piecewise linear in each channel, from red at level 0 to blue at level 255."""
    position = np.linspace(1.0, 0.0, 256)
    red = np.interp(position, [0.0, 0.35, 0.66, 0.89, 1.0], [0.0, 0.0, 1.0, 1.0, 0.5])
    green = np.interp(position, [0.0, 0.125, 0.375, 0.64, 0.91, 1.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    blue = np.interp(position, [0.0, 0.11, 0.34, 0.65, 1.0], [0.5, 1.0, 1.0, 0.0, 0.0])
    table = (np.stack([red, green, blue], axis=1) * 255).astype(np.uint8)
    table.flags.writeable = False
    return table


JET = _jet_table()


def jet(levels: Bytes) -> Bytes:
    """Turns levels [H, W] of `scale_depth` into colours [H, W, 3]: near (0) is red, far (255) is blue."""
    colours = np.empty((*levels.shape, 3), np.uint8)
    return JET.take(levels, axis=0, out=colours, mode="clip")  # "clip" skips the check: a byte is never out of range


def surface_normals(depth: Depth, corner: tuple[int, int]) -> Floats:
    """Unit normals [H, W, 3] in the camera's coordinates (x right, y down, z away), all pointing towards the camera.

    A plane n . P = d is linear in inverse depth, 1/Z = (n_x (u - c_x)/f + n_y (v - c_y)/f + n_z) / d, so a
    least-squares fit of 1/Z in a small window is a plane fit, and n_z keeps its sign: no cross product, no flip.
    Neighbours that are missing, or nearer or farther by more than 3 %, belong to another surface and are left out, so
    silhouettes stay sharp. A missing pixel gets the normal of the nearest valid one.

    Args:
        depth: millimetres, 0 = missing.
        corner: x, y of the crop's first pixel in the 640 x 480 frame, counted from 1, 1 (the frame's `_loc.txt`).
    """
    height, width = depth.shape
    valid = depth > 0
    if not valid.any():
        return np.broadcast_to(np.array([0, 0, -1], np.float32), (height, width, 3)).copy()
    z = depth.astype(np.float32)
    padded = np.pad(z, _REACH)
    centre = np.where(valid, z, np.float32(1))
    # Sums over the window: of the weights, of u, v and q = Z_centre / Z - 1, and of their products.
    n, su, sv, sq, suu, svv, suv, suq, svq = np.zeros((9, height, width), np.float32)
    offsets = range(-_REACH, _REACH + 1, _STRIDE)
    for dv in offsets:
        for du in offsets:
            other = padded[_REACH + dv : _REACH + dv + height, _REACH + du : _REACH + du + width]
            weight = (np.abs(other - centre) <= _SAME_SURFACE * centre).astype(np.float32)
            q = weight * (centre / np.maximum(other, 1) - 1)
            n += weight
            su += du * weight
            sv += dv * weight
            sq += q
            suu += du * du * weight
            svv += dv * dv * weight
            suv += du * dv * weight
            suq += du * q
            svq += dv * q
    n = np.maximum(n, 1)
    # The ridge makes a window without extent (such as one column) flat in the direction in which it has none.
    cuu, cvv = suu - su * su / n + _RIDGE, svv - sv * sv / n + _RIDGE
    cuv, cuq, cvq = suv - su * sv / n, suq - su * sq / n, svq - sv * sq / n
    determinant = cuu * cvv - cuv * cuv
    slope_u, slope_v = (cuq * cvv - cvq * cuv) / determinant, (cvq * cuu - cuq * cuv) / determinant
    level = 1 + (sq - slope_u * su - slope_v * sv) / n
    u = np.arange(width, dtype=np.float32) + np.float32(corner[0] - CENTRE[0])
    v = np.arange(height, dtype=np.float32)[:, None] + np.float32(corner[1] - CENTRE[1])
    towards = np.stack([slope_u * FOCAL, slope_v * FOCAL, level - slope_u * u - slope_v * v], axis=-1)
    # Its component along the pixel's ray is `level`, about 1: it is never zero and always points away from the camera.
    normals: Floats = (-towards / np.linalg.norm(towards, axis=-1, keepdims=True)).astype(np.float32)
    return _fill(normals, valid)


def encode_normals(normals: Floats) -> Bytes:
    """Turns unit normals [H, W, 3] into colours: red is right, green up, blue towards the camera; -1..1 to 0..255."""
    colours: Bytes = np.rint((normals * np.array([1, -1, -1], np.float32) + 1) * 127.5).astype(np.uint8)
    return colours


def encode_depth(
    depth: Depth, encoding: DepthEncoding = "jet", *, corner: tuple[int, int] | None = None, size: int = SIZE
) -> Bytes:
    """Encodes a raw depth crop as a network's three channels, [size, size, 3]; the module's docstring gives the order.

    `jet` is the paper's encoding; `normals` are the surface normals; `raw` is the scaled depth, repeated per channel.
    The result is defined for every crop: one without valid pixels, or a constant one, gives one colour (`depth_flaw`).

    Args:
        depth: [H, W], 0 = missing; in any unit, but in millimetres for `normals`.
        corner: only for `normals`; see `surface_normals`.

    Raises:
        UsageError: `normals` without a corner, or an unknown encoding.
    """
    if encoding == "normals":
        if corner is None:
            raise UsageError(
                "surface normals need the crop's place in the frame (its _loc.txt)", "use --depth-encoding jet"
            )
        return resize_depth(encode_normals(surface_normals(depth, corner)), size)
    if encoding not in DEPTH_ENCODINGS:
        raise UsageError(f"unknown depth encoding {encoding!r}: one of {', '.join(DEPTH_ENCODINGS)}")
    rows, columns = _sources(*depth.shape, size)
    # As `resize_depth` does, but with the colours in between, so that repeated rows are coloured only once.
    levels = scale_depth(fill_holes(depth)).take(columns, axis=1)
    colours = jet(levels) if encoding == "jet" else np.repeat(levels[..., None], 3, axis=2)
    return colours.take(rows, axis=0)
