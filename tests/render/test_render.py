"""Scenes become exact pixels and figures."""

import numpy as np
import pytest

from studio.catalog import CATALOG
from studio.core.runs import last
from studio.render.charts import curves_figure, points_figure
from studio.render.raster import enlarge, points_picture, sheet, still
from studio.scenes import Curves, Images, Points, Series


def images(n):
    return Images(np.random.default_rng(n).integers(0, 256, (n, 8, 6, 3), dtype=np.uint8))


def toy_points(position):
    axis = np.linspace(-1, 1, 21)
    x, y = np.meshgrid(axis, axis)
    empty = np.zeros((0, 2))
    return Points(np.array([position]), np.zeros(1), axis, axis, x**2 + y**2, empty)


def test_one_picture_stays_exact_and_many_tile():
    one, five = images(1), images(5)
    assert np.array_equal(sheet(one), one.pixels[0])
    page = sheet(five, gap=2)
    assert page.shape == (2 * 8 + 2, 3 * 6 + 4, 3)
    assert np.array_equal(page[10:18, 8:14], five.pixels[4])


def test_enlarge_keeps_large_pictures_and_the_aspect():
    assert enlarge(images(1).pixels[0], 24).shape == (24, 18, 3)
    big = np.zeros((600, 10, 3), np.uint8)
    assert enlarge(big, 480) is big


@pytest.mark.parametrize(("position", "corner"), [((0.9, 0.9), (0, 1)), ((-0.9, -0.9), (1, 0))])
def test_y_points_up(position, corner):
    """A point in the upper right of the plane is drawn in the upper right of the picture."""
    picture = points_picture(toy_points(position), side=100).astype(int)
    orange = (np.abs(picture - [224, 103, 20]).sum(axis=2) < 20).nonzero()
    assert (orange[0].mean() > 50, orange[1].mean() > 50) == (bool(corner[0]), bool(corner[1]))


def test_runaway_points_do_not_break_the_picture():
    for position in ((np.nan, 0.0), (np.inf, 1.0), (1e300, -1e300)):
        assert points_picture(toy_points(position), side=50).shape == (50, 50, 3)


def test_still_takes_the_first_picture():
    chart = Curves("t", "x", "y", (Series("s", np.arange(3.0), np.arange(3.0)),))
    assert still((chart,)) is None
    assert np.array_equal(still((chart, images(1))), images(1).pixels[0])


def test_figures_hold_the_data():
    study = CATALOG[0].tiny() if CATALOG[0].name == "landscapes" else next(
        s for s in CATALOG if s.name == "landscapes"
    ).tiny()  # fmt: skip
    points, _, curves, _ = study.view(last(study.run()))
    figure = points_figure(points)
    assert len(figure.data[-1].x) == study.points
    line = curves_figure(curves)
    assert len(line.data[0].y) == study.steps + 1 and line.layout.yaxis.type == "log"
