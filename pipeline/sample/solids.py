"""Solids as signed distance fields in millimetres, for the rendered sample; vectorised over float32 points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Field = Callable[[Floats, Floats, Floats], Floats]  # x, y, z in mm -> distance to the surface, negative inside


@dataclass(frozen=True)
class Solid:
    """A distance field of a solid that stands on z = 0 around the z axis, and its bounding box."""

    field: Field
    low: Floats  # [3]
    high: Floats  # [3]
    faceted: bool = False  # paint is laid on flat faces rather than around the axis


def lathe(profile: Sequence[tuple[float, float]]) -> Solid:
    """The solid of revolution of a closed polygon of (radius, height) points in mm, all with radius >= 0.

    The distance is tabulated over the half-plane (radius, height), so a lookup costs the same for any profile.
    """
    points = np.asarray(profile, np.float32)
    pad = 6.0  # mm around the solid; the table has one entry per millimetre
    radius, height = float(points[:, 0].max()), float(points[:, 1].max())
    r = np.arange(0, radius + 2 * pad, dtype=np.float32)[:, None, None]
    z = np.arange(-pad, height + 2 * pad, dtype=np.float32)[None, :, None]
    # [radii, heights, edges]: the nearest point on every edge, and whether a ray towards the axis crosses the edge.
    r0, z0, r1, z1 = (*points.T, *np.roll(points, -1, axis=0).T)
    dr, dz = r1 - r0, z1 - z0
    along = np.clip(((r - r0) * dr + (z - z0) * dz) / np.maximum(dr**2 + dz**2, 1e-9), 0, 1)
    on_axis = (r0 < 1e-6) & (r1 < 1e-6)  # an edge along the axis is inside the solid, not on its surface
    squared = (r - r0 - along * dr) ** 2 + (z - z0 - along * dz) ** 2 + np.where(on_axis, np.float32(1e9), 0)
    crosses = ~on_axis & ((z0 <= z) != (z1 <= z)) & (r < r0 + (z - z0) * dr / np.where(dz == 0, 1, dz))
    inside = crosses.sum(axis=-1) % 2 == 1
    table = (np.sqrt(squared.min(axis=-1)) * np.where(inside, -1, 1)).astype(np.float32)
    rows, columns = table.shape
    flat = table.ravel()

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        i = np.minimum(np.sqrt(x * x + y * y), np.float32(rows - 1.01))
        j = np.minimum(np.maximum(z + np.float32(pad), 0), np.float32(columns - 1.01))
        i0, j0 = i.astype(np.intp), j.astype(np.intp)
        fi, fj = i - i0.astype(np.float32), j - j0.astype(np.float32)
        corner = i0 * columns + j0
        lower, upper = flat.take(corner), flat.take(corner + columns)
        lower += fj * (flat.take(corner + 1) - lower)
        upper += fj * (flat.take(corner + columns + 1) - upper)
        distance: Floats = lower + fi * (upper - lower)
        return distance

    reach = np.array([radius, radius, 0], np.float32)
    return Solid(field, -reach, np.array([radius, radius, height], np.float32))


def box(width: float, depth: float, height: float, rounding: float = 2.0) -> Solid:
    """A cuboid in mm with rounded edges."""
    half = np.array([width, depth, height], np.float32) / 2

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        a, b, c = (np.abs(p) - np.float32(h - rounding) for p, h in zip((x, y, z - half[2]), half, strict=True))
        outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2 + np.maximum(c, 0) ** 2)
        distance: Floats = outside + np.minimum(np.maximum(np.maximum(a, b), c), 0) - np.float32(rounding)
        return distance

    low = np.array([-half[0], -half[1], 0], np.float32)
    return Solid(field, low, np.array([half[0], half[1], 2 * half[2]], np.float32), faceted=True)


def handle(wall: float, middle: float, ring: float, thickness: float, taller: float) -> Solid:
    """A mug's handle: a torus through the wall at x = `wall`, `taller` times as high, and only outside the wall."""

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        across = np.sqrt((x - np.float32(wall)) ** 2 + ((z - np.float32(middle)) / np.float32(taller)) ** 2)
        torus = np.sqrt((across - np.float32(ring)) ** 2 + y * y) - np.float32(thickness)
        distance: Floats = np.maximum(torus, np.float32(wall) - np.sqrt(x * x + y * y))
        return distance

    reach = (ring + thickness) * taller
    low = np.array([0, -thickness, middle - reach], np.float32)
    return Solid(field, low, np.array([wall + ring + thickness, thickness, middle + reach], np.float32))


def brim(middle: float, length: float, width: float, droop: float) -> Solid:
    """A cap's brim: an elliptic sheet around (`middle`, 0) that droops towards its sides and tip."""

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        u = x - np.float32(middle)
        edge = (np.sqrt((u / np.float32(length)) ** 2 + (y / np.float32(width)) ** 2) - 1) * np.float32(
            min(length, width)
        )
        sheet = np.abs(z - np.float32(3 + droop) + np.float32(droop / width**2) * y * y) * np.float32(0.8) - 2
        distance: Floats = np.maximum(edge, sheet)
        return distance

    low = np.array([middle - length, -width, 0], np.float32)
    return Solid(field, low, np.array([middle + length, width, 6 + droop], np.float32))


def union(*solids: Solid) -> Solid:
    """The union of several solids; paint is laid as on the first."""

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        distance = solids[0].field(x, y, z)
        for solid in solids[1:]:
            distance = np.minimum(distance, solid.field(x, y, z))
        return distance

    low = np.minimum.reduce([solid.low for solid in solids])
    return Solid(field, low, np.maximum.reduce([solid.high for solid in solids]), solids[0].faceted)
