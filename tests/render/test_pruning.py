"""A pruned network drawn: words escaped, wide layers compact, every number finite, the script in step with Python."""

import json
import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from render.pruned import contributions, decay_of, imitated, named, pruned, searched
from surfaces.odd_prompts import ODD_PROMPTS

from studio.render.charts import curves_figure
from studio.render.pruning import pruning_html
from studio.render.pruning_decay import decay_html
from studio.render.pruning_fits import fit_words, story
from studio.render.pruning_imitation import imitation_html, sentence
from studio.render.pruning_layers import cells, layers_html, level_of
from studio.render.pruning_picture import pruning_picture
from studio.render.pruning_plane import hull_of, moments_of, seen, window
from studio.render.raster import still
from studio.render.tables import csv_text
from studio.scenes import Channels, Curves, Decay, Pruning, Series

SCENE = pruned()
EMPTY = Pruning("nothing yet", (), (0.0, 0.0), None, ())


class Marks(HTMLParser):
    """Collects the tags and the names of attributes that a browser would see, and checks that tags are closed."""

    VOID = ("input", "br", "path", "circle")

    def __init__(self, text):
        super().__init__()
        self.tags, self.names, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names.append([name for name, _ in attrs])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def body(scene):
    return pruning_html(scene, "x").split("</style>")[1]


def data_of(scene):
    return json.loads(unescape(re.search(r'data-prune="([^"]*)"', pruning_html(scene, "x"))[1]))


def sound(text):
    """Whether every drawing on a page is made of numbers."""
    shapes = re.findall(r' (?:d|cx|cy|viewBox|style)="([^"]*)"', text)
    assert not [shape for shape in shapes if re.search(r"nan|inf|None|M$|ML", shape)]
    assert not re.search(r"\bnan\b|\binf\b", text.lower())
    assert not Marks(text).open
    return text


def test_no_word_gets_out_of_its_place():
    plain = Marks(pruning_html(named(SCENE, "fox"), "fox"))
    for word in [*ODD_PROMPTS, "</style><script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "</section>"]:
        text = pruning_html(named(SCENE, word), word).encode("utf-8", "replace").decode()
        marks = Marks(text)
        assert (marks.tags, marks.names) == (plain.tags, plain.names), word
        assert "script" not in marks.tags and not marks.open


def test_odd_states_and_kinds_stay_in_their_places():
    odd = '"><script>alert(1)</script>'
    layers = (Channels("a", np.ones(3), odd),)
    path = replace(SCENE.imitation, kinds=(odd,) * len(SCENE.imitation.kinds))
    assert "<script" not in pruning_html(replace(SCENE, layers=layers, imitation=path), "x")


def test_it_is_complete_without_a_script():
    text = sound(body(SCENE))
    path = SCENE.imitation
    assert sentence(path, len(path.steps) - 1) in unescape(text)
    assert fit_words(SCENE.decays[-1], False) in unescape(text)
    assert "5.24 million multiply-accumulates before, 3.1 million now: 59 % of them are left" in text
    assert "1 of 2 layers done, 1 more stays as it is" in text and "<summary>Why some layers" in text
    assert text.count('type="radio"') == (path.weights[-1] > 0).sum()
    labels = re.findall(r"<label[^>]*>", text)
    assert len(labels) == 3 and all("st-prune-quiet" in label for label in labels)


def test_the_data_for_the_script_come_back_as_they_were():
    path, data = SCENE.imitation, data_of(named(SCENE, "\"'<&"))["path"]
    assert data["layer"] == "\"'<&" and data["steps"] == path.steps.tolist() and data["kinds"] == list(path.kinds)
    for moment, weights in enumerate(path.weights):
        kept = data["channels"][moment]
        assert sorted(kept) == np.flatnonzero(weights > 0).tolist()
        assert 1e-5 * np.array(data["weights"][moment]) == pytest.approx(weights[kept], abs=1.01e-5)
    frames = data_of(SCENE)["decay"]["frames"]
    assert len(frames) == 3 and all(len(pair) == 2 for pair in frames)


@pytest.mark.parametrize("n", [1, 2, 3, 16, 600, 601, 4096])
def test_wide_layers_are_binned_and_stay_small(n):
    noise = np.random.default_rng(n)
    weights = np.where(noise.random(n) < 0.3, noise.gamma(2.0, size=n), 0.0)
    binned = cells(weights, 600)
    assert len(binned) <= 600 and (n > 600 or np.array_equal(binned, weights))
    text = sound(layers_html((Channels("wide", weights, "done"),)))
    assert len(text) < 14_000 and f"{(weights > 0).sum():,} of {n:,}" in text
    counted = sum(int(length) for length in re.findall(r"h(\d+)", text))
    assert counted == len(binned) + (binned == 0).sum(), "every cell is drawn once, a dropped one with its hole"


def test_a_cell_is_the_mean_of_its_channels_and_its_level_grows_with_it():
    assert cells(np.array([1.0, 3.0, 0.0, 0.0, 5.0]), 3).tolist() == [2.0, 0.0, 5.0]
    assert level_of(np.array([0.0, 0.1, 1.0, 4.0, 16.0, 99.0])).tolist() == [0, 1, 2, 3, 4, 5]
    assert level_of(cells(np.array([np.nan, np.inf, -1.0]), 9)).tolist() == [0, 0, 0]


def test_a_large_network_is_a_small_page():
    scene = pruned((32, 64, 96, 128, 160, 192, 320, 960, 1280, 4096) * 6, 2048, 64, 260, (8, 64))
    text = sound(body(scene))
    assert len(text) < 300_000
    assert len(moments_of(scene.imitation)) < 260 and "moments are shown" in text
    assert moments_of(scene.imitation)[[0, -1]].tolist() == [0, 259]


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_few_channels_and_few_moments_are_drawn(n, steps):
    scene = pruned((n,), n, min(n, 3), steps, (2,) if n > 3 else ())
    text = sound(body(scene))
    assert ("st-prune-close" in text) == (steps > 1)
    assert pruning_picture(scene).shape == (400, 640, 3)


def test_nothing_is_drawn_where_there_is_nothing():
    assert "no layers" in sound(body(EMPTY)) and pruning_picture(EMPTY).shape == (400, 640, 3)
    assert data_of(EMPTY) == {"path": {}, "decay": {}}
    none = Channels("none", np.zeros(0), "waiting")
    assert "<small></small>" in sound(body(replace(EMPTY, layers=(none,))))
    path = replace(
        SCENE.imitation, steps=np.zeros(0, int), touched=np.zeros(0, int), kinds=(), kept=np.zeros(0, int),
        errors=np.zeros(0), weights=np.zeros((0, 64)),
    )  # fmt: skip
    before = replace(SCENE, imitation=path)
    assert "st-prune-time" not in sound(body(before)) and pruning_picture(before).shape == (400, 640, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300])
def test_numbers_that_are_none_do_no_harm(value):
    path = SCENE.imitation
    odd = replace(
        path, positions=np.full_like(path.positions, value), errors=np.full_like(path.errors, value),
        shown=value, target=np.full(2, value),
    )  # fmt: skip
    decay = SCENE.decays[0]
    bad = replace(decay, exp_rate=value, exp_r2=value, power=value, power_r2=value)
    worse = replace(bad, errors=tuple(np.full(len(line), value) for line in decay.errors))
    layers = (Channels("odd", np.full(9, value), "done"),)
    scene = Pruning("odd", layers, (value, value), odd, (bad, worse, decay))
    sound(body(scene))
    json.dumps(data_of(scene), allow_nan=False)
    assert pruning_picture(scene).shape == (400, 640, 3)


def test_the_plane_keeps_angles_and_the_hull_holds_every_dot():
    for seed in range(5):
        path = imitated(30, 5, 12, seed)
        view = seen(path, moments_of(path))
        flat = path.positions - path.positions[0]
        drawn = (view.dots - view.dots[0]) * [1, -1]
        scale = np.linalg.norm(drawn) / np.linalg.norm(flat)
        assert drawn == pytest.approx(scale * flat, abs=1e-9)
        following = np.roll(view.hull, -1, axis=0) - view.hull
        offsets = view.dots[:, None] - view.hull
        turns = following[:, 0] * offsets[..., 1] - following[:, 1] * offsets[..., 0]
        assert (turns >= -1e-9).all() or (turns <= 1e-9).all()
        assert set(map(tuple, view.hull)) <= set(map(tuple, view.dots))
        inside = (view.dots >= 0) & (view.dots <= [360, view.height])
        assert inside.all()


def test_hulls_of_few_points():
    assert hull_of(np.zeros((0, 2))).shape == (0, 2)
    assert hull_of(np.ones((4, 2))).tolist() == [[1, 1]]
    assert len(hull_of(np.array([[0.0, 0], [1, 1], [2, 2]]))) == 2
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5], [0.5, 0]])
    assert len(hull_of(square)) == 4


def test_the_close_up_holds_the_last_places_and_grows():
    path = imitated(64, 4, 30)
    view = seen(path, moments_of(path))
    times = [view.close(moment) for moment in range(30)]
    assert 1 <= times[0] < times[-1] <= 512 and all(math.log2(each).is_integer() for each in times)
    left, top, wide, tall = map(float, window(view, 29).split())
    assert wide == tall == pytest.approx(360 / times[-1], abs=1e-3)
    assert left < view.trail[29][0] < left + wide and top < view.trail[29][1] < top + tall


def test_a_moment_reads_as_a_sentence():
    path = replace(SCENE.imitation, kinds=("remove", *SCENE.imitation.kinds[1:]))
    assert sentence(path, 0) == f"Step 1: removed channel {path.touched[0]}; 1 kept; error 1 of the first channel’s."
    assert sentence(replace(path, errors=np.zeros(40)), 3).endswith("no error left.")


def line_decay(rate, power, errors, r2, points=8):
    kept = np.arange(1, len(errors) + 1)
    return Decay(points, points, ("greedy",), (kept,), (errors,), rate, r2[0], power, r2[1])


def straight(line):
    """How far the points of a path are off the line through its ends, in thousandths of the drawing."""
    points = np.array([[float(n) for n in point.split()] for point in line.strip("M").split("L")])
    along = points[-1] - points[0]
    off = points - points[0]
    return np.abs(along[0] * off[:, 1] - along[1] * off[:, 0]).max() / np.linalg.norm(along)


def test_an_exponential_is_straight_on_the_linear_axis_and_a_power_law_on_the_other():
    kept = np.arange(1, 41)
    fast = line_decay(0.4, 3.0, np.exp(-0.4 * (kept - 1)), (0.999, 0.8))
    slow = line_decay(0.1, 2.0, kept**-2.0, (0.8, 0.999))
    for decay, own, name in ((fast, 0, "exponential"), (slow, 1, "power law")):
        frames = data_of(replace(SCENE, decays=(decay,)))["decay"]["frames"][0]
        assert straight(frames[own]["lines"][0]) < 2 and straight(frames[1 - own]["lines"][0]) > 50
        assert straight(frames[own]["fits"][own]) < 2
        said = fit_words(decay, bool(own))
        assert said == (
            f"Straight on this axis: {name}, R² 0.999; {('power law', 'exponential')[own]} 0.800. "
            f"At effective dimension 8 the {name} fits better."
        )
        assert f"straight on the {('linear', 'logarithmic')[own]} axis" in fit_words(decay, not own)


def test_the_fit_lies_on_the_points_it_fits():
    kept = np.arange(1, 31)
    decay = line_decay(0.4, 3.0, np.exp(-0.4 * (kept - 1)), (1.0, 0.8))
    frame = data_of(replace(SCENE, decays=(decay,)))["decay"]["frames"][0][0]
    ends = [frame[part][0].strip("M").split("L")[0] for part in ("lines", "fits")]
    assert ends[0] == ends[1]


def test_words_do_not_claim_more_than_the_fits_show():
    errors = np.exp(-np.arange(20.0))
    even, poor = line_decay(1, 1, errors, (0.991, 0.99)), line_decay(1, 1, errors, (0.6, 0.4))
    unknown = line_decay(np.nan, np.nan, errors, (np.nan, np.nan))
    assert "both fit equally well" in fit_words(even, False)
    assert "though neither is good" in fit_words(poor, False)
    assert "too few points" in fit_words(unknown, True)
    first, second = line_decay(1, 1, errors, (0.99, 0.8), 4), line_decay(1, 1, errors, (0.8, 0.99), 80)
    assert story((first, second)).startswith("Up to 4 effective dimensions the exponential fits better, from 80 on")
    assert "to and fro" in story((second, first)) and "Neither" in story((even,))
    assert story((second, second)) == (
        "Wherever the two differ, from 80 to 80 calibration values, the power law fits better."
    )
    assert story((replace(first, dimension=9), replace(second, dimension=9))).startswith("Up to 4 calibration values")


def test_real_greedy_paths_cross_over():
    """With many channels a dimension the decay is exponential, with few it is a power law."""
    decays = tuple(decay_of(128, dimension, 70) for dimension in (4, 96))
    assert story(decays).startswith("Up to 4 effective dimensions the exponential")
    errors = [error for _, _, error, _ in searched(contributions(128, 4), 20)]
    assert all(one >= other - 1e-12 for one, other in pairwise(errors))


def test_errors_of_zero_and_few_points_are_drawn():
    for errors in (np.array([1.0]), np.array([1.0, 0.0]), np.zeros(3), np.array([5.0, 2.0, 1e-300])):
        text = sound(decay_html((line_decay(1.0, 1.0, errors, (0.9, 0.9)),)))
        assert "st-prune-c0" in text and 'st-prune-decay"' not in text
    assert decay_html(()) == "" and decay_html((Decay(1, 1, (), (), (), 0.0, 0.0, 0.0, 0.0),)) == ""


def test_where_nothing_is_left_a_line_leaves_the_chart():
    decay = line_decay(1.0, 1.0, np.array([1.0, 0.1, 0.01, 1e-30]), (0.9, 0.9))
    frame = data_of(replace(SCENE, decays=(decay,)))["decay"]["frames"][0][0]
    assert [text for _, text in frame["y"]] == ["1", "0.1", "0.01"]
    downs = [float(point.split()[1]) for point in frame["lines"][0].strip("M").split("L")]
    assert downs == [0, 500, 1000, 2000]


def test_the_rule_and_the_layer_are_named():
    path = replace(SCENE.imitation, rule="fully_corrective")
    assert "How hidden 1 is imitated · fully corrective" in imitation_html(path, "x")


def test_the_picture_has_one_size_and_the_scene_gives_it():
    pictures = [pruning_picture(scene) for scene in (SCENE, replace(SCENE, imitation=None), EMPTY)]
    assert {picture.shape for picture in pictures} == {(400, 640, 3)}
    assert np.array_equal(still((SCENE,)), pictures[0])
    blue = [(picture.astype(int)[..., 2] - picture[..., 0] > 80).sum() for picture in pictures]
    assert blue[0] > 200 and blue[2] == 0


def test_the_table_has_the_channels_the_path_and_the_decays():
    scene = replace(SCENE, title="=x")
    lines = csv_text((scene,)).splitlines()
    kept = sum(int((layer.weights > 0).sum()) for layer in scene.layers)
    points = sum(len(line) for decay in scene.decays for line in decay.kept)
    assert len(lines) == 1 + kept + 40 + points
    first = int(np.flatnonzero(scene.layers[0].weights)[0])
    assert lines[1] == f"'=x: block 1,channel {first},{first},{scene.layers[0].weights[first]:.10g}"
    assert lines[1 + kept] == f"'=x: path of hidden 1,step 1: add {scene.imitation.touched[0]},1,1"
    assert lines[-1].startswith("'=x: 32 calibration values,chance,")


def test_charts_have_logarithmic_axes_and_dots():
    x = np.array([1.0, 10.0, 100.0])
    series = (Series("line", x, x), Series("dots", x, x, dots=True), Series("point", x[:1], x[:1]))
    figure = curves_figure(Curves("t", "x", "y", series, log_x=True))
    assert [trace.mode for trace in figure.data] == ["lines", "markers", "markers"]
    assert figure.layout.xaxis.type == "log" and figure.layout.yaxis.type == "linear"
    assert figure.layout.xaxis.rangemode == "normal"
    plain = curves_figure(Curves("t", "x", "y", series))
    assert plain.layout.xaxis.type is None and plain.layout.xaxis.rangemode == "tozero"
