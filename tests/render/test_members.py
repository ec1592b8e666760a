"""The trade-off picture: points where they belong, words escaped, any numbers survived."""

import re

import numpy as np
import pytest

from studio.render.members import members_html
from studio.scenes import Members


def members(losses, distances, log=False, captions=None, pixels=None):
    n = len(losses)
    words = captions or tuple(f"member {index}" for index in range(n))
    return Members("Loss and spread", "loss", "gap", np.array(losses), np.array(distances), words, pixels, log)


def places(text):
    found = re.findall(r'value="(\w+)" class="st-(?:plain)?" style="left:([\d.-]+)%;bottom:([\d.-]+)%"', text)
    return {name: (float(x), float(y)) for name, x, y in found}


def test_left_is_low_and_up_is_far():
    found = places(members_html(members([1.0, 2.0, 3.0], [0.3, 0.1, 0.2]), "toy"))
    assert found["0"][0] < found["1"][0] < found["2"][0]
    assert found["1"][1] < found["2"][1] < found["0"][1]
    assert all(0 <= part <= 100 for place in found.values() for part in place)


def test_a_log_axis_spaces_decades_evenly():
    found = places(members_html(members([1e-8, 1e-4, 1.0], [1.0, 2.0, 3.0], log=True), "toy"))
    assert found["1"][0] - found["0"][0] == pytest.approx(found["2"][0] - found["1"][0], abs=0.02)


def test_the_plain_run_stands_on_the_same_axes():
    text = members_html(members([1.0], [1.0]), "toy", members([3.0], [0.2]))
    found = places(text)
    assert found["plain0"][0] > found["0"][0] and found["plain0"][1] < found["0"][1]
    assert "plain: member 0" in text and "Grey: the plain run." in text


@pytest.mark.parametrize("value", [0.0, 1e-30, 7.25, 1e12, -0.7])
def test_one_member_and_equal_members_have_a_place(value):
    for n in (1, 3):
        found = places(members_html(members([value] * n, [0.0] * n), "toy"))
        assert len(found) == n and all(0 <= part <= 100 for place in found.values() for part in place)


def test_words_are_escaped():
    text = members_html(members([1.0], [1.0], captions=('"><script>alert(1)</script>',)), "toy")
    assert "<script>" not in text and "&quot;&gt;&lt;script&gt;" in text


def test_a_picture_is_shown_in_the_card():
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    text = members_html(members([1.0, 2.0], [1.0, 2.0], pixels=pixels), "toy")
    assert text.count('<div class="st-card"><img src="data:image/png;base64,') == 2
