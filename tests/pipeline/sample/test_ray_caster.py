"""The solids' distances, the camera, and the depth sensor with its flaws."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.images.depth import surface_normals
from pipeline.sample.ray_caster import Paint, Shot, View, shoot
from pipeline.sample.render import CATEGORIES, Settings, draw_object
from pipeline.sample.solids import Solid, box, brim, handle, lathe, union

WHITE = Paint("plain", ((0.8, 0.8, 0.8),), gloss=0.0)


def sphere(radius: float) -> Solid:
    angles = np.linspace(-np.pi / 2, np.pi / 2, 61)
    return lathe([(max(radius * np.cos(a), 0.0), radius + radius * np.sin(a)) for a in angles])


# The solids' distances.


@pytest.mark.parametrize(
    ("solid", "point", "distance"),
    [
        (sphere(40), (0, 0, 40), -39.5),
        (sphere(40), (42, 0, 40), 2),
        (sphere(40), (0, 24, 8), 0),
        (box(60, 40, 100), (32, 0, 50), 2),
        (box(60, 40, 100), (0, 0, 50), -20),
        (box(60, 40, 100), (0, -23, 103), np.hypot(5, 5) - 2),  # from the middle of the rounded edge
        (handle(40, 50, 20, 5, 1.0), (60, 0, 50), -5),
        (handle(40, 50, 20, 5, 1.0), (44, 0, 71), -3.6),
        (brim(50, 60, 50, 10), (100, 0, 13), -2),
    ],
)
def test_distances_are_the_solids(solid: Solid, point: tuple[float, float, float], distance: float) -> None:
    x, y, z = (np.array([value], np.float32) for value in point)
    assert solid.field(x, y, z)[0] == pytest.approx(distance, abs=0.6)


def test_a_union_is_the_nearer_of_its_parts() -> None:
    parts = sphere(30), box(80, 20, 40)
    both = union(*parts)
    points = np.random.default_rng(0).uniform(-60, 90, (3, 200)).astype(np.float32)
    np.testing.assert_array_equal(both.field(*points), np.minimum(*(part.field(*points) for part in parts)))
    assert both.high.tolist() == [40, 30, 60]


def test_solids_lie_within_their_boxes_and_do_not_overstate_distance() -> None:
    """Sphere tracing steps over what a field overstates: between two points it may not change by more than the way."""
    settings, rng = Settings(len(CATEGORIES), 2, 1, 0), np.random.default_rng(0)
    for category in range(len(CATEGORIES)):
        solid, _ = draw_object(settings, category, 1)
        inside = rng.uniform(solid.low - 5, solid.high + 5, (4000, 3)).T.astype(np.float32)
        distance = solid.field(*inside)
        out = ((inside < solid.low[:, None] - 1) | (inside > solid.high[:, None] + 1)).any(axis=0)
        assert (distance[out] > 0).all()
        assert (distance < 0).mean() > 0.03
        shift = rng.normal(0, 1.5, inside.shape).astype(np.float32)
        change = np.abs(solid.field(*(inside + shift)) - distance)
        assert (change <= 1.05 * np.linalg.norm(shift, axis=0) + 0.1).all()


# The camera and the sensor.


def test_depth_is_the_distance_along_the_optical_axis() -> None:
    view = View(elevation=np.radians(45), turn=0.3, distance=700)
    shot = shoot(sphere(40), WHITE, view, np.random.default_rng(0))
    nearest = shot.depth[shot.mask & (shot.depth > 0)]
    assert np.percentile(nearest, 1) == pytest.approx(660, abs=4)
    # The silhouette is a disc of radius f * r / sqrt(d^2 - r^2) around the frame's middle.
    radius = 570.3 * 40 / np.sqrt(700**2 - 40**2)
    assert shot.mask.sum() == pytest.approx(np.pi * radius**2, rel=0.03)
    rows, columns = np.nonzero(shot.mask)
    assert columns.mean() + shot.corner[0] == pytest.approx(320, abs=1)
    assert rows.mean() + shot.corner[1] == pytest.approx(240, abs=1)


def test_the_table_is_where_the_elevation_says() -> None:
    view = View(elevation=np.radians(60), turn=0.0, distance=700, shift=(20, -15))
    shot = shoot(sphere(40), WHITE, view, np.random.default_rng(0))
    normals = surface_normals(shot.depth, (shot.corner[0] - 20, shot.corner[1] + 15))
    table = np.median(normals[-3:].reshape(-1, 3), axis=0)
    np.testing.assert_allclose(table, [0, -np.cos(np.radians(60)), -np.sin(np.radians(60))], atol=0.06)


def test_the_projectors_shadow_lies_to_the_left() -> None:
    tall = box(60, 60, 150)
    shot = shoot(tall, WHITE, View(elevation=np.radians(30), turn=0.0), np.random.default_rng(0))
    missing = (shot.depth == 0) & ~shot.mask
    middle = shot.mask.shape[1] // 2
    assert missing[:, :middle].sum() > 5 * missing[:, middle:].sum()


def test_gloss_blinds_the_sensor() -> None:
    view = View(elevation=np.radians(45), turn=0.0)
    holes = []
    for gloss in (0.0, 0.7):
        shot = shoot(sphere(40), replace(WHITE, gloss=gloss), view, np.random.default_rng(0))
        holes.append(((shot.depth == 0) & shot.mask).mean())
    assert holes[1] > holes[0] + 0.005


def test_depth_comes_in_the_sensors_steps() -> None:
    shot = shoot(box(90, 60, 130), WHITE, View(elevation=np.radians(30), turn=0.6), np.random.default_rng(0))
    values = np.unique(shot.depth[shot.mask & (shot.depth > 0)])
    steps = np.diff(values[values < 760])
    # Eighths of a pixel of disparity at 0.7 m are z^2 / (8 f b) = 1.4 mm.
    assert 1 < len(values) < 120
    assert set(steps) <= {1, 2}
    assert 2 in steps


def test_a_turn_is_a_turn_and_light_is_light() -> None:
    mug, paint = draw_object(Settings(10, 2, 1, 0), 0, 1)
    view = View(elevation=np.radians(30), turn=0.0)

    def seen(**change: Any) -> Shot:
        return shoot(mug, paint, replace(view, **change), np.random.default_rng(0))

    def width(shot: Shot) -> int:
        return int(np.ptp(np.flatnonzero(shot.mask.any(axis=0))))

    left, right, front = (seen(turn=turn) for turn in (np.pi / 2, -np.pi / 2, 0.0))
    assert width(left) > width(front) + 12  # the handle is seen from the side
    assert abs(width(left) - width(right)) <= 2
    bright, dark = (seen(exposure=exposure) for exposure in (1.0, 0.2))
    np.testing.assert_array_equal(bright.depth, dark.depth)
    assert dark.rgb.mean() < 0.6 * bright.rgb.mean()
