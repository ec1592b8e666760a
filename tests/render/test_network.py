"""A growing network drawn: words escaped, neurons in their places, wide networks in bounds, budgets as in Python."""

import json
import os
import re
import shutil
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import combinations, pairwise

import numpy as np
import pytest
from surfaces.growing import grown, layer_of
from surfaces.odd_prompts import ODD_PROMPTS

from studio.render.network import MOST, SCRIPT, network_html
from studio.render.network_ends import pens
from studio.render.network_layout import BOX, BUCKETS, affordable, bucket, families, family_shares, laid_out, lineage
from studio.render.network_measures import number
from studio.render.network_picture import network_picture
from studio.render.raster import still
from studio.render.tables import csv_text
from studio.scenes import Link, Split

CHROMIUM = os.environ.get("STUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SCENE = grown(layer_of("one", 3, 4), layer_of("two", 4, 1, seed=1), round=3)


class Marks(HTMLParser):
    """Collects the tags and the names of attributes that a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.names = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names.append([name for name, _ in attrs])


def named(word):
    one, two = (replace(layer, name=word, schemes=(word,) * len(layer.ids)) for layer in SCENE.layers)
    split = Split(word, 0, word, -1.0, -0.5)
    return replace(SCENE, title=word, inputs=word, outputs=word, unit=word, layers=(one, two), splits=(split,))


def test_no_word_gets_out_of_its_place():
    plain = Marks(network_html(named("fox"), "fox"))
    for word in [*ODD_PROMPTS, "</style><script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "</section>"]:
        text = network_html(named(word), word).encode("utf-8", "replace").decode()
        marks = Marks(text)
        assert (marks.tags, marks.names) == (plain.tags, plain.names), word
        assert "script" not in marks.tags


def test_the_data_for_the_script_come_back_as_they_were():
    data = json.loads(unescape(re.search(r'data-net="([^"]*)"', network_html(named("\"'<&"), "x"))[1]))
    assert data["unit"] == "\"'<&" and data["budget"] == SCENE.budget
    gains = [choice[2] for choice in data["choices"]]
    assert gains == pytest.approx([gain for layer in SCENE.layers for gain in layer.gains[promising(layer)]], rel=1e-5)


def promising(layer):
    return np.flatnonzero(layer.gains < 0)


def test_neurons_keep_their_order_and_copies_stand_below_their_parents():
    for seed in range(20):
        small, large = layer_of("l", 4, 5, seed), layer_of("l", 4, 9, seed)
        before, after = small.ids[lineage(small)].tolist(), large.ids[lineage(large)].tolist()
        assert sorted(after) == list(range(13))
        assert [neuron for neuron in after if neuron in before] == before
        first = families(large)[lineage(large)]
        assert len(set(first.tolist())) == 1 + sum(one != other for one, other in pairwise(first.tolist()))
        assert all(
            after.index(child) > after.index(parent) for child, parent in enumerate(large.parents) if parent >= 0
        )


def test_copies_whose_parent_is_gone_stand_together_and_circles_end():
    layer = layer_of("l", 4)
    torn = replace(layer, ids=np.array([3, 7, 4, 8]), parents=np.array([-1, 1, -1, 1]))
    assert torn.ids[lineage(torn)].tolist() == [3, 7, 8, 4]
    ring = replace(layer, parents=np.array([1, 0, 2, -1]))
    assert sorted(lineage(ring).tolist()) == [0, 1, 2, 3] and len(families(ring)) == 4


def test_a_family_adds_its_shares_without_signs():
    layer = replace(
        layer_of("l", 3), parents=np.array([-1, 0, -1]), shares=np.array([1.5, -0.5, 1.0])
    )  # fmt: skip
    assert family_shares(layer).tolist() == [2.0, 2.0, 1.0]
    text = network_html(grown(layer, round=1), "x")
    assert "the sizes of one family’s shares add up to 2, not 1" in text and "a negative copy" in text
    assert text.count("st-net-minus") == 1 + text.split("</style>")[0].count("st-net-minus")


@pytest.mark.parametrize("sizes", [(1,), (3, 4), (12, 8), (16, 128, 64), (512,) * 12, (2000,)])
def test_every_neuron_has_a_place_of_its_own_on_the_sheet(sizes):
    scene = grown(*(layer_of("l", n) for n in sizes))
    layout = laid_out(scene, 320, 24, 120, 56, 8.0)
    places = np.concatenate([block.places() for block in layout.blocks])
    assert len(np.unique(places.round(2), axis=0)) == sum(sizes)
    assert (places >= [119.9, 23.9]).all() and (places <= [layout.width - 119.9, 320 - 23.9]).all()
    (inputs, _), (outputs, _) = layout.ends
    assert inputs + BOX / 2 < places[:, 0].min() and places[:, 0].max() < outputs - BOX / 2
    assert all(left.x + left.width < right.x for left, right in pairwise(layout.blocks))


def test_a_wide_network_stays_in_bounds():
    wide = replace(grown(*(layer_of("l", 480, 32, seed) for seed in range(12)), round=32), links=())
    text = network_html(wide, "wide")
    assert len(text) < 1_000_000 and 0.9 * MOST <= text.count('<input type="radio"') <= MOST
    assert "those with the most to gain" in text
    best = max(range(12), key=lambda index: -wide.layers[index].gains.min())
    assert f'value="{best}-{wide.layers[best].gains.argmin()}"' in text


def test_many_links_become_a_band_and_few_are_lines():
    few, many = grown(layer_of("a", 5), layer_of("b", 4)), grown(layer_of("a", 50), layer_of("b", 40))
    body = [network_html(scene, "x").split("</style>")[1] for scene in (few, many)]
    assert body[0].count("L") >= 20 and "st-net-link" in body[0] and "st-net-band" not in body[0]
    assert body[1].count("st-net-band") == 3 and "st-net-link" not in body[1]
    skipping = replace(
        few, layers=(*few.layers, layer_of("c", 2)), links=(Link(0, 2, np.ones((2, 5))), Link(7, 9, np.ones((1, 1))))
    )
    assert network_html(skipping, "x").split("</style>")[1].count("st-net-skip") == 1


def test_a_single_output_is_reached_by_lines_with_the_signs_and_sizes_of_its_weights():
    reads = np.array([[4.0, -2.5, 0.01, -4.0, 1.0]])
    one = replace(grown(layer_of("a", 5)), inputs="x", outputs="f(x)", reads=reads)
    body = network_html(one, "x").split("</style>")[1]
    assert len(re.findall(r'class="st-net-end"[^>]*><span>(?:x|f\(x\))</span>', body)) == 2
    lines = re.findall(r'class="st-net-(adds|takes|reads)" stroke-width="([\d.]+)"', body)
    assert [kind for kind, _ in lines].count("adds") == 2 and [kind for kind, _ in lines].count("takes") == 2
    assert max(lines, key=lambda line: float(line[1]))[1] == "4.4" and "taken away from the output" in body
    pictures = [network_picture(scene).astype(int) for scene in (one, replace(one, reads=-reads))]
    purple = [((part[..., 2] > part[..., 1] + 60) & (part[..., 0] > part[..., 1] + 20)).sum() for part in pictures]
    assert min(purple) > 100 and not np.array_equal(*pictures)


def test_many_outputs_have_no_sign_and_unknown_ones_a_band():
    layer = layer_of("a", 5)
    places, signs = pens(np.array([[3.0, 0.0, 0.1, -3.0], [-4.0, 0.0, 0.1, 1.0]]))
    assert places.tolist() == [3, -1, -1, 2] and not signs.any()
    several, unknown = (network_html(grown(layer, outputs=rows), "x").split("</style>")[1] for rows in (10, 0))
    assert "st-net-reads" in several and "st-net-band" not in several and "added to the output" not in several
    assert unknown.count("st-net-band") == 1 and "st-net-reads" not in unknown
    odd = replace(grown(layer), reads=np.full((1, 9), np.nan), inputs="", outputs="")
    body = network_html(odd, "x").split("</style>")[1]
    assert ">input<" in body and ">output<" in body and body.count("st-net-band") == 1


def test_what_the_run_might_choose_otherwise_is_only_about():
    signed = replace(SCENE.layers[0], schemes=tuple("quartet" if gain < 0 else "" for gain in SCENE.layers[0].gains))
    plain, rough = (network_html(scene, "x") for scene in (SCENE, replace(SCENE, layers=(signed, SCENE.layers[1]))))
    assert "pays about " in rough and "may choose a cheaper one" in rough and "pays about" not in plain
    assert "quartet (two copies and two negative ones, all moved apart)" in rough


def test_a_copy_that_was_not_scored_says_so():
    layer = SCENE.layers[0]
    late = replace(layer, costs=np.where(layer.born == 4, 0.0, 3.0), gains=np.where(layer.born == 4, 0.0, layer.gains))
    text = network_html(grown(late, round=4), "x")
    assert text.count("Not scored yet; the neuron it was split off had eigenvalues") == 1


def test_without_a_score_there_is_the_diagram_alone():
    text = network_html(grown(layer_of("one", 3), layer_of("two", 2), scored=False), "x").split("</style>")[1]
    assert "no neuron scored so far" in text and text.count('<input type="radio"') == 5
    assert "range" not in text and "Eigenvalues" not in text and "unstable" not in text and "ratio" not in text
    assert not any(colour in text for colour in BUCKETS)


def test_kinks_allow_ranks_and_no_ratio():
    exact, rough = (network_html(replace(SCENE, approximate=kinks), "x") for kinks in (False, True))
    assert "ratio 0.75" in exact and "of the prediction there" in exact and "place" not in exact.split("</style>")[1]
    assert "place 1 → 1" in rough and "ratio" not in rough and "of the prediction there" not in rough


def test_a_card_says_in_words_what_is_known():
    layer = SCENE.layers[0]
    cards = re.findall(r'value="0-(\d+)".*?<div class="st-net-card">(.*?)</div>', network_html(SCENE, "x"))
    assert {int(neuron) for neuron, _ in cards} == set(layer.ids.tolist())
    for neuron, card in cards:
        place = int(neuron)
        assert f"neuron {neuron}</b>" in card and f"Eigenvalues {number(layer.low[place])} to" in card
        assert ("unstable" in card) == (layer.low[place] < 0)
        came = f"split off neuron {layer.parents[place]} in round {layer.born[place]}"
        assert (came in card) == (layer.parents[place] >= 0)
        assert ("the last so far" in card) == (layer.born[place] == 3)
    assert f"{(layer.low < 0).sum()} of 7 unstable" in network_html(SCENE, "x")


def test_colours_are_warm_below_zero_and_cool_above():
    shades = bucket(np.array([-1.0, -1e-9, 0.0, 1e-9, 1.0]), 1.0)
    assert shades.tolist() == [0, 4, 5, 6, 10] and bucket(np.zeros(2), 0.0).tolist() == [5, 5]
    red, blue = ([int(colour[place : place + 2], 16) for colour in BUCKETS] for place in (1, 5))
    assert red[0] > blue[0] and red[-1] < blue[-1] and len(set(BUCKETS)) == 11


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_do_no_harm(value):
    odd = replace(SCENE.layers[0], low=np.full(7, value), gains=np.full(7, value), shares=np.full(7, value))
    scene = replace(SCENE, layers=(odd, SCENE.layers[1]), eps=value, curvature=value, budget=value)
    scene = replace(scene, probe_changes=np.full(3, value), splits=(Split("one", 0, "x", value, -1.0),))
    text = network_html(scene, "x").split("</style>")[1]
    assert "nan" not in text.lower() and "inf" not in text.lower().replace("information", "")
    assert network_picture(scene).shape == (400, 640, 3)


def test_a_network_without_neurons_is_drawn():
    for scene in (grown(layer_of("none", 0), layer_of("b", 2)), replace(SCENE, layers=(), links=(), splits=())):
        assert "st-net-drawing" in network_html(scene, "x") and network_picture(scene).shape == (400, 640, 3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (-0.00345, "−0.00345"),
        (1234.5, "1,234"),
        (-1.5e-7, "−1.5·10⁻⁷"),
        (2e9, "2·10⁹"),
        (np.nan, "unknown"),
    ],
)
def test_numbers_read_as_people_write_them(value, words):
    assert number(value) == words


def test_a_budget_is_kept_and_spent_at_least_half_as_well_as_possible():
    noise = np.random.default_rng(0)
    for _ in range(60):
        gains, costs = noise.normal(size=9).tolist(), noise.integers(0, 8, 9).astype(float).tolist()
        budget = float(noise.integers(0, 20))
        taken = affordable(gains, costs, budget)
        assert (
            sum(costs[i] for i in taken) <= budget
            and all(gains[i] < 0 for i in taken)
            and len(set(taken)) == len(taken)
        )
        every = (way for size in range(10) for way in combinations(range(9), size))
        best = min(sum(gains[i] for i in way) for way in every if sum(costs[i] for i in way) <= budget)
        assert best - 1e-9 <= sum(gains[i] for i in taken) <= 0.5 * best + 1e-9
    assert affordable([-1.0, -10.0], [1.0, 20.0], 20.0) == [1], "the one large fall, not the better rate"
    assert affordable([-1.0, -1.0, 1.0], [1.0, 1.0, 0.0], 2.0) == [0, 1]


def test_the_picture_has_one_size_colours_and_rings():
    scenes = (SCENE, grown(layer_of("l", 2), scored=False), grown(*(layer_of("l", 512) for _ in range(12))))
    pictures = [network_picture(scene).astype(int) for scene in scenes]
    assert {picture.shape for picture in pictures} == {(400, 640, 3)}
    warm = [(picture[..., 0] - picture[..., 1] > 80).sum() for picture in pictures]
    assert warm[0] > 50 and warm[1] == 0 and warm[2] > 1000
    assert np.array_equal(still((SCENE,)), pictures[0])
    older = network_picture(replace(SCENE, round=9)).astype(int)
    dark = [(picture.sum(axis=2) < 200).sum() for picture in (pictures[0], older)]
    assert dark[0] > dark[1] + 50, "those of the last round have a ring"


def test_the_table_has_a_line_a_neuron():
    lines = csv_text((replace(SCENE, title="=x"),)).splitlines()
    layer = SCENE.layers[1]
    assert len(lines) == 1 + 7 + 5
    assert lines[-1] == f"'=x: two,neuron 4,{layer.low[4]:.10g},{layer.high[4]:.10g}"


@pytest.fixture(scope="module")
def tab():
    if CHROMIUM is None:
        pytest.skip("no Chromium found: install it, or name it in STUDIO_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 390, "height": 844})
        browser.close()


def loaded(tab, scene):
    tab.set_content(f"<body style='margin:0'><main>{network_html(scene, 'x')}</main>")
    words = [tab.locator(f".st-net-{name}-words").inner_text() for name in ("budget", "eps")]
    assert tab.locator(".st-net-slide").first.is_hidden()
    tab.evaluate(f"{SCRIPT}\nwindow.refresh = studioNetwork(document.querySelector('main'));")
    assert [tab.locator(f".st-net-{name}-words").inner_text() for name in ("budget", "eps")] == words
    return tab.locator(".st-net-budget"), tab.locator(".st-net-eps")


def moved(slider, position):
    slider.evaluate("(e, to) => { e.value = to; e.dispatchEvent(new Event('input', {bubbles: true})); }", position)


def priced(scale, heavy):
    """Return two layers whose splits cost this and that; `heavy`: one promises more than the others together."""
    noise = np.random.default_rng(1)
    layers = [layer_of(name, 14, 3, seed) for seed, name in enumerate("ab")]
    layers = [replace(layer, costs=noise.integers(1, 30, 17).astype(float)) for layer in layers]
    if heavy:
        gains, costs = np.full(17, -0.05), np.ones(17)
        gains[5], costs[5] = -5.0, 120.0
        layers[0] = replace(layers[0], gains=gains, costs=costs)
        layers[1] = replace(layers[1], gains=np.zeros(17))
    return [replace(layer, gains=layer.gains * scale) for layer in layers]


def priced_at(cost):
    return f"{number(cost)} weight{'' if cost == 1 else 's'}"


@pytest.mark.parametrize(("scale", "heavy"), [(1.0, False), (1e-6, False), (1.0, True)])
def test_the_sliders_say_what_python_says(tab, scale, heavy):
    layers = priced(scale, heavy)
    scene = grown(*layers, round=2)
    budget, eps = loaded(tab, scene)
    gains, costs = (np.concatenate([getattr(layer, name) for layer in layers]) for name in ("gains", "costs"))
    whole = costs[gains < 0].sum()
    for position in (0, 7, 40, 100, 163, 185, 200):
        moved(budget, position)
        most = whole * position / 200
        taken = affordable(gains.tolist(), costs.tolist(), most)
        words = tab.locator(".st-net-budget-words").inner_text()
        assert words.startswith(f"A budget of {priced_at(most)} pays {len(taken)} split{'s' * (len(taken) != 1)}: ")
        assert f"cost {priced_at(costs[taken].sum())}, " in words
        assert f"predicted change of the loss {number(gains[taken].sum())} × eps²" in words
        assert tab.locator(".st-net-picked").first.get_attribute("d").count("M") == len(taken)
    for position in (0, 60, 200):
        moved(eps, position)
        at = 1.15 * 0.2 * position / 200
        near = min((0.05, 0.1, 0.2), key=lambda tried: abs(tried - at))
        words = tab.locator(".st-net-eps-words").inner_text()
        assert eps.locator("~ output").inner_text() == number(at)
        assert words.startswith(
            f"At eps {number(at)} the predicted change is {number(-0.5 * at**2)}. Measured at eps {number(near)}: "
        )
        assert words.endswith("0.8 of the prediction there.")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_was_chosen_stays_while_the_network_grows(tab):
    budget, eps = loaded(tab, grown(layer_of("one", 4, 2), layer_of("two", 3), round=2))
    tab.locator(".st-net-field > input[value='0-3']").focus()
    tab.keyboard.press("Space")
    tab.keyboard.press("ArrowRight")
    card = tab.locator(".st-net-card").locator("visible=true")
    chosen = tab.locator(".st-net-field > input:checked").get_attribute("value")
    assert card.count() == 1 and chosen != "0-3"
    moved(budget, 77)
    moved(eps, 33)
    larger = network_html(grown(layer_of("one", 4, 9), layer_of("two", 3), round=9), "x")
    tab.evaluate("text => { document.querySelector('main').innerHTML = text; window.refresh(); }", larger)
    assert tab.locator(".st-net-field > input:checked").evaluate_all("all => all.map(e => e.value)") == [chosen]
    assert (budget.input_value(), eps.input_value()) == ("77", "33")
    assert card.count() == 1 and f"neuron {chosen[2:]}" in card.inner_text()


def test_wide_networks_scroll_inside_their_box_on_a_phone(tab):
    loaded(tab, grown(*(layer_of(f"a long name of layer {seed}", 60, 4, seed) for seed in range(12)), round=4))
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate("(e => e.scrollWidth > e.clientWidth)(document.querySelector('.st-net-scroll'))")
    tab.locator(".st-net-field > input").last.focus()
    tab.keyboard.press("Space")
    box = tab.locator(".st-net-card").locator("visible=true").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390, "the card stays in view"
