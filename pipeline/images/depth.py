"""RGB-D crops to network inputs: pure functions on arrays, no files and no loop over pixels.

The order for depth is fill, then encode, then resize, all at the crop's own resolution until the last step. The paper
names the resize first; since the resize copies single pixels, the two orders differ only where a crop is shrunk, and
there filling first is the safer one: sampling a raw crop can skip the only valid pixels of a region. It also keeps
"nearest" a distance on the sensor, gives surface normals their true geometry, and costs less on small crops.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.datasets.washington import CENTRE, FOCAL
from pipeline.images.resize import SIZE, Bytes, T, _sources, resize_depth
from pipeline.runtime.errors import UsageError

Depth = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


DepthEncoding = Literal["jet", "normals", "raw"]
DEPTH_ENCODINGS: tuple[DepthEncoding, ...] = get_args(DepthEncoding)


def _fill(values: npt.NDArray[T], valid: npt.NDArray[np.bool_]) -> npt.NDArray[T]:
    """[H, W] or [H, W, C] with what is not valid replaced by the value at the nearest valid pixel, if there is one."""
    filled = values.copy()
    if valid.all() or not valid.any():
        return filled
    # The holes' bounding box and one pixel around it: a pixel nearest to a hole borders on one, so it lies in there.
    rows, columns = (np.flatnonzero((~valid).any(axis=axis)) for axis in (1, 0))
    box = (slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2))
    holes = ~valid[box]
    nearest = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
    rows, columns = nearest.reshape(2, -1)[:, np.flatnonzero(holes)]
    filled[box][holes] = filled[box][rows, columns]
    return filled


def fill_holes(depth: Depth) -> Depth:
    """[H, W] with every missing value (0) replaced by the nearest valid one, by Euclidean distance in pixels.

    Valid pixels keep their value. Without any valid pixel there is nothing to fill with: the zeros come back as they
    are, and `depth_flaw` names it.
    """
    return _fill(depth, depth > 0)


def depth_flaw(depth: Depth) -> str | None:
    """Why a depth crop carries no shape, or None: the text of the warning the caller logs beside the frame's name.

    Such crops still have a defined encoding; the functions here do not log, since a worker's log is easily lost.
    """
    valid = depth[depth > 0]
    if valid.size == 0:
        return "every depth value is missing"
    if min(depth.shape) == 1:
        return f"the crop is {depth.shape[1]} x {depth.shape[0]}, one pixel wide"
    if valid.min() == valid.max():
        return f"every valid depth value is {valid[0]} mm"
    return None


def scale_depth(depth: Depth) -> Bytes:
    """[H, W] without holes, to 0 at its nearest value and 255 at its farthest, linear between, rounded half up.

    A constant image (one that is all missing included) has no extent and becomes 0 everywhere.
    """
    near, far = int(depth.min()), int(depth.max())
    extent = far - near
    if extent == 0:
        return np.zeros(depth.shape, np.uint8)
    levels = ((depth.astype(np.uint32) - near) * 510 + extent) // (2 * extent)  # 65535 * 510 fits 32 bits
    return levels.astype(np.uint8)


def _jet_table() -> Bytes:
    """[256, 3]: the classic jet, piecewise linear per channel, from red at level 0 to blue at level 255."""
    position = np.linspace(1.0, 0.0, 256)
    red = np.interp(position, [0.0, 0.35, 0.66, 0.89, 1.0], [0.0, 0.0, 1.0, 1.0, 0.5])
    green = np.interp(position, [0.0, 0.125, 0.375, 0.64, 0.91, 1.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    blue = np.interp(position, [0.0, 0.11, 0.34, 0.65, 1.0], [0.5, 1.0, 1.0, 0.0, 0.0])
    table = (np.stack([red, green, blue], axis=1) * 255).astype(np.uint8)
    table.flags.writeable = False
    return table


JET = _jet_table()


def jet(levels: Bytes) -> Bytes:
    """[H, W] levels of `scale_depth` to [H, W, 3] colours: near (0) is red, far (255) is blue."""
    colours = np.empty((*levels.shape, 3), np.uint8)
    return JET.take(levels, axis=0, out=colours, mode="clip")  # a byte is never out of range: nothing is checked


def surface_normals(depth: Depth, corner: tuple[int, int]) -> Floats:
    """[H, W, 3] unit normals in the camera's frame (x right, y down, z away), all turned towards the camera.

    A plane n . P = d is linear in inverse depth, 1/Z = (n_x (u - c_x)/f + n_y (v - c_y)/f + n_z) / d, so a
    least-squares line through 1/Z in a small window is a plane fit, and n_z keeps its sign: no cross product, no flip.
    Neighbours that are missing, or nearer or farther by more than 3 %, belong to another surface and take no part, so
    silhouettes stay sharp. A missing pixel takes the normal of the nearest valid one.

    Args:
        depth: millimetres, 0 = missing.
        corner: x, y of the crop's first pixel in the 640 x 480 frame, counted from 1, 1 (the frame's `_loc.txt`).
    """
    height, width = depth.shape
    valid = depth > 0
    if not valid.any():
        return np.broadcast_to(np.array([0, 0, -1], np.float32), (height, width, 3)).copy()
    reach, stride = 4, 2
    z = depth.astype(np.float32)
    padded = np.pad(z, reach)
    centre = np.where(valid, z, np.float32(1))
    # Sums over the window of the weights, of u, v and q = Z_centre / Z - 1, and of their products.
    n, su, sv, sq, suu, svv, suv, suq, svq = np.zeros((9, height, width), np.float32)
    offsets = range(-reach, reach + 1, stride)
    for dv in offsets:
        for du in offsets:
            other = padded[reach + dv : reach + dv + height, reach + du : reach + du + width]
            weight = (np.abs(other - centre) <= 0.03 * centre).astype(np.float32)
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
    # The ridge makes a window without extent (one column, say) flat in the direction that it does not see.
    cuu, cvv = suu - su * su / n + 0.5, svv - sv * sv / n + 0.5
    cuv, cuq, cvq = suv - su * sv / n, suq - su * sq / n, svq - sv * sq / n
    determinant = cuu * cvv - cuv * cuv
    slope_u, slope_v = (cuq * cvv - cvq * cuv) / determinant, (cvq * cuu - cuq * cuv) / determinant
    level = 1 + (sq - slope_u * su - slope_v * sv) / n
    u = np.arange(width, dtype=np.float32) + np.float32(corner[0] - CENTRE[0])
    v = np.arange(height, dtype=np.float32)[:, None] + np.float32(corner[1] - CENTRE[1])
    towards = np.stack([slope_u * FOCAL, slope_v * FOCAL, level - slope_u * u - slope_v * v], axis=-1)
    # Along the pixel's own ray this vector is `level`, about 1: it is never zero and always points away from us.
    normals: Floats = (-towards / np.linalg.norm(towards, axis=-1, keepdims=True)).astype(np.float32)
    return _fill(normals, valid)


def encode_normals(normals: Floats) -> Bytes:
    """[H, W, 3] unit normals to colours: red right, green up, blue towards the camera, -1..1 to 0..255."""
    colours: Bytes = np.rint((normals * np.array([1, -1, -1], np.float32) + 1) * 127.5).astype(np.uint8)
    return colours


def encode_depth(
    depth: Depth, encoding: DepthEncoding = "jet", *, corner: tuple[int, int] | None = None, size: int = SIZE
) -> Bytes:
    """A raw depth crop to the network's three channels, [size, size, 3]; see the module's docstring for the order.

    `jet` is the paper's encoding; `normals` the surface normals; `raw` the scaled depth, the same in each channel.
    Whatever the crop, the result is defined: without any valid pixel, or constant, it is one colour (`depth_flaw`).

    Args:
        depth: [H, W] millimetres, 0 = missing.
        corner: for `normals` alone, see there.

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
    # As `resize_depth`, with the colours in between: what repeats a row need not be coloured again.
    levels = scale_depth(fill_holes(depth)).take(columns, axis=1)
    colours = jet(levels) if encoding == "jet" else np.repeat(levels[..., None], 3, axis=2)
    return colours.take(rows, axis=0)
