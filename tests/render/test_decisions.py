"""Pictures of decisions: colours by class, paler where unsure, points where they belong, pixels as square blocks."""

import numpy as np

from studio.render.decisions import PALETTE, decision_map, disagreement_map, enlarged, with_points


def chances(*rows):
    return np.array(rows, dtype=np.float64)


def test_a_map_has_its_classes_colours_and_fades_with_doubt():
    grid = chances([[1.0, 0.0], [0.6, 0.4]], [[0.0, 1.0], [0.5, 0.5]])
    drawn = decision_map(grid).astype(int)
    sure, unsure, other, torn = drawn[1, 0], drawn[1, 1], drawn[0, 0], drawn[0, 1]
    assert np.abs(sure - PALETTE[0]).sum() < np.abs(unsure - PALETTE[0]).sum() < np.abs(torn - PALETTE[0]).sum()
    assert np.abs(other - PALETTE[1]).sum() < np.abs(other - PALETTE[0]).sum()


def test_disagreement_is_white_where_there_is_none():
    drawn = disagreement_map(chances([0.0, 0.5], [1.0, 2.0]))
    assert (drawn[1, 0] == 255).all() and (drawn[0, 0] < drawn[1, 1]).all() and (drawn[0, 1] == drawn[0, 0]).all()


def test_points_are_drawn_upwards_and_those_outside_left_out():
    white = np.full((21, 21, 3), 255, dtype=np.uint8)
    drawn = with_points(white, chances([0.0, 1.0], [2.0, 0.5]), np.array([1, 0]))
    assert (drawn[0, 0] == PALETTE[1]).all() and (white == 255).all()
    assert (drawn[5:] == 255).all() and (drawn[:, 5:] == 255).all()
    assert (with_points(white, np.zeros((0, 2)), np.zeros(0, dtype=int)) == white).all()


def test_enlarging_keeps_every_pixel_a_block():
    small = np.arange(16, dtype=np.float64).reshape(1, 4, 4, 1) / 15
    large = enlarged(small, side=12)
    assert large.shape == (1, 12, 12, 3) and (large[0, ::3, ::3, 0] == np.round(255 * small[0, :, :, 0])).all()
    assert enlarged(np.zeros((2, 28, 28, 3))).shape == (2, 140, 140, 3)
