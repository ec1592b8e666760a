"""Laws of the augmentations: neutral is the identity, geometry is exact, gradients are right."""

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F

from studio.core.seeds import generator_from
from studio.problems.augmentation import HELD_OUT, NEUTRAL, TRAIN, Draw, Policy, draw_views, views


def neutral(copies: int = 1, side: int = 16, size: int = 16) -> Draw:
    return draw_views(NEUTRAL, copies, side, size, generator_from(0))


def picture(n: int = 2, side: int = 16, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=generator_from(5), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("side,size", [(16, 16), (32, 16), (16, 40)])
def test_neutral_views_are_plain_bilinear_resampling(side: int, size: int) -> None:
    images = picture(side=side, dtype=torch.float64)
    plain = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    seen = views(images, neutral(3, side, size), size)
    assert seen.shape == (2, 3, 3, size, size)
    assert (seen - plain[:, None]).abs().max() < 1e-6


@pytest.mark.parametrize("name", [field.name for field in fields(Policy)])
def test_each_augmentation_is_the_identity_at_zero_and_acts_otherwise(name: str) -> None:
    images = picture()
    reach = replace(NEUTRAL, **{name: 4.0 if name == "blur" else 0.3})
    assert (views(images, draw_views(reach, 4, 16, 16, generator_from(1)), 16) - images[:, None]).abs().max() > 0.01
    none = replace(TRAIN, **{name: 0.0}) if getattr(TRAIN, name) else NEUTRAL
    gone = replace(NEUTRAL, **{name: getattr(none, name)})
    assert (views(images, draw_views(gone, 4, 16, 16, generator_from(1)), 16) - images[:, None]).abs().max() < 1e-5


def test_colour_steps_follow_the_published_formulas() -> None:
    images = picture(dtype=torch.float64)
    b, s, c = 0.3, 1.7, 0.6
    draw = replace(neutral(), brightness=torch.tensor([b]), saturation=torch.tensor([s]), contrast=torch.tensor([c]))
    wanted = images + b
    grey = wanted.mean(dim=1, keepdim=True)
    wanted = (wanted - grey) * s + grey
    mean = wanted.mean(dim=(1, 2, 3), keepdim=True)
    wanted = (wanted - mean) * c + mean
    assert (views(images, draw, 16)[:, 0] - wanted).abs().max() < 1e-6


def test_a_shift_moves_an_impulse_by_whole_pixels_and_leaves_grey_behind() -> None:
    image = torch.ones(1, 3, 16, 16)
    image[:, :, 5, 9] = -1
    draw = replace(neutral(), shift=torch.tensor([[2 * 2 / 16, -2 * 3 / 16]]), brightness=torch.tensor([0.25]))
    seen = views(image, draw, 16)[0, 0, 0]
    assert (seen[5 - 3, 9 + 2] + 0.75).abs() < 1e-4
    assert torch.equal(seen[-3:], torch.zeros(3, 16)) and torch.equal(seen[:, :2], torch.zeros(16, 2))
    assert seen[0, 2] == pytest.approx(1.25, abs=1e-4)


def test_a_smaller_ratio_pads_with_grey_and_a_larger_one_crops() -> None:
    image = torch.full((1, 3, 20, 20), 0.5)
    seen = views(image, replace(neutral(2, 20, 20), ratio=torch.tensor([0.8, 1.2])), 20)[0, :, 0]
    assert (seen[0] != 0).sum() == 16 * 16 and seen[0, 1].abs().max() == 0
    assert (seen[1] == 0.5).all()


def test_the_hole_is_half_the_side_grey_and_cut_off_at_the_border() -> None:
    image = torch.ones(1, 3, 16, 16)
    policy = Policy(cutout=0.5)
    seen = views(image, draw_views(policy, 200, 16, 16, generator_from(2)), 16)[0, :, 0]
    holes = (seen == 0).sum(dim=(1, 2))
    assert holes.max() == 64 and holes.min() < 40
    rows, columns = (seen == 0).any(dim=2).sum(dim=1), (seen == 0).any(dim=1).sum(dim=1)
    assert torch.equal(holes, rows * columns)


def test_every_copy_has_its_own_draw_within_the_papers_ranges() -> None:
    draw = draw_views(TRAIN, 500, 64, 64, generator_from(3))
    for values, low, high in (
        (draw.brightness, -0.5, 0.5), (draw.saturation, 0, 2), (draw.contrast, 0.5, 1.5), (draw.ratio, 0.8, 1.2),
    ):  # fmt: skip
        assert len(values.unique()) > 400
        assert low <= values.min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < values.max() <= high
    assert draw.shift.abs().max() == pytest.approx(0.25)


@pytest.mark.parametrize("policy", [TRAIN, HELD_OUT, replace(TRAIN, perspective=0.2, blur=1.0, noise=0.1)])
def test_gradients_are_right_in_double_precision(policy: Policy) -> None:
    image = picture(1, 6, torch.float64).requires_grad_()
    draw = draw_views(policy, 2, 6, 5, generator_from(4))
    assert torch.autograd.gradcheck(lambda x: views(x, draw, 5), (image,))


def test_views_do_not_depend_on_how_they_are_batched() -> None:
    images = picture()
    draw = draw_views(TRAIN, 7, 16, 12, generator_from(6))
    whole = views(images, draw, 12)
    parts = torch.cat([views(images, part, 12) for part in draw.split(3)], dim=1)
    assert [len(part) for part in draw.split(3)] == [3, 3, 1]
    assert torch.allclose(whole, parts, atol=1e-6)


def test_the_held_out_policy_shares_nothing_with_training() -> None:
    assert all(getattr(TRAIN, f.name) == 0 or getattr(HELD_OUT, f.name) == 0 for f in fields(Policy))


def test_same_seed_same_draw() -> None:
    one, two = (draw_views(HELD_OUT, 4, 16, 16, generator_from(9)) for _ in range(2))
    assert all(torch.equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(Draw))
