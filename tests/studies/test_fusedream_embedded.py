"""FuseDream on the weights that ship: the claims that random networks cannot show."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import small_nets  # noqa: F401  (one thread)
import torch

from studio.core.runs import last
from studio.core.seeds import generator_from
from studio.files.weights import assets_folder
from studio.methods.fusedream import FuseDreamConfig, fusedream, pull
from studio.problems.clip_image import ClipImage, joined, make_bank
from studio.problems.pairs import load_pair, needed_bytes
from studio.problems.prompts import parse_prompt, prompt_target
from studio.studies.fusedream import FuseDream

pytestmark = pytest.mark.skipif(not (assets_folder() / "embedded" / "decoder").is_dir(), reason="no weights ship here")
PROMPTS = ("a red apple", "a fox", "a blue car", "a yellow star", "an owl", "a house", "a pizza", "a whale")


def problem(prompts: tuple[str, ...] = PROMPTS, scouts: int = 0) -> ClipImage:
    pair = load_pair("embedded", "cpu")
    target = torch.stack([prompt_target(pair.clip, parse_prompt(prompt)) for prompt in prompts])
    made = ClipImage(pair.decoder, pair.clip, target)
    if scouts:
        made.bank = joined(list(make_bank(pair.decoder, pair.clip, scouts, generator_from(0, "test"))))
    return made


def pixels_climbed(score: str, steps: int = 60) -> tuple[ClipImage, torch.Tensor, torch.Tensor]:
    """Optimise pixels alone, as an adversary would; return their own and their held-out score."""
    asked, generator = problem(PROMPTS[:4]), generator_from(1)
    images = torch.zeros(4, 3, 64, 64) + 0.1 * torch.randn(4, 3, 64, 64, generator=generator)
    for _ in range(steps):
        _, slope = pull(asked, images, asked.draws(8 if score == "augclip" else 0, generator))
        images = (images + 0.05 * slope.sign()).clamp(-1, 1)
    own, _ = pull(asked, images, asked.draws(0, generator))
    return asked, own, asked.held_out(images)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_f4_augmented_pixels_keep_their_score_where_plain_ones_lose_it() -> None:
    _, own_plain, held_plain = pixels_climbed("clip")
    _, _, held_augmented = pixels_climbed("augclip")
    assert (own_plain - held_plain).mean() >= 0.3, "the attack on plain CLIP works"
    assert (held_augmented - held_plain).mean() >= 0.08


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_f5_through_the_generator_the_held_out_score_loses_less_under_augclip() -> None:
    asked = problem(scouts=1024)
    config, gaps = FuseDreamConfig(steps=60, copies=8), {}
    for score in ("clip", "augclip"):
        end = last(fusedream(asked, replace(config, score=score, optimise="single"), generator_from(2)))
        images = asked.decode(end.best_z, end.best_y)
        own, _ = pull(asked, images, asked.draws(0, generator_from(0)))
        gaps[score] = (own - asked.held_out(images)).mean()
    assert gaps["clip"] - gaps["augclip"] >= 0.01


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_f11_from_random_starts_the_blend_beats_a_single_latent() -> None:
    names = ("apple", "fox", "car", "star", "owl", "house", "pizza", "whale", "rose", "bus")
    asked = problem(tuple(f"a {n} on a {c} background" for n in names for c in ("blue", "yellow")))
    config = FuseDreamConfig(steps=25, copies=4, yardstick=4, scout="none")
    blend = last(fusedream(asked, replace(config, start_bias=0.0), generator_from(3)))
    single = last(fusedream(asked, replace(config, optimise="single"), generator_from(3)))
    wins = [asked.held_out(asked.decode(end.best_z, end.best_y)) for end in (blend, single)]
    assert (wins[0] > wins[1]).float().mean() >= 0.65


def test_a_dream_improves_on_its_best_scout_here_and_held_out() -> None:
    asked = problem(("a red apple on a blue background", "a fox on a green background"), scouts=128)
    scouted = last(fusedream(asked, FuseDreamConfig(optimise="none"), generator_from(4)))
    end = last(fusedream(asked, FuseDreamConfig(steps=20), generator_from(4)))
    with torch.no_grad():
        before, after = (asked.held_out(asked.decode(d.best_z, d.best_y)) for d in (scouted, end))
    assert (end.best_scores > scouted.best_scores).all() and (after > before).all()


def kept_bytes(work: Callable[[], torch.Tensor]) -> int:
    """Return the bytes autograd keeps while `work` runs."""
    sizes: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        work()
    return sum(sizes)


def test_the_forecast_covers_what_is_kept() -> None:
    asked = problem(("a fox",))
    z, y = asked.random_latents(1, generator_from(0))
    images = asked.decode(z, y).requires_grad_()
    picture = kept_bytes(lambda: asked.decode(z.requires_grad_(), y))
    seen = kept_bytes(lambda: asked.score(images, asked.draws(8, generator_from(0))[0])) / 8
    (none, _), (one, view) = (needed_bytes("embedded", n, 8) for n in (0, 1))
    assert picture <= one - none and seen <= view <= 4 * seen


def test_the_bank_that_ships_belongs_to_the_weights_that_ship() -> None:
    if (assets_folder() / "embedded" / "bank.safetensors").is_file():
        bank = load_pair("embedded", "cpu").bank()
        assert bank is not None and len(bank) >= 4096


def test_the_study_runs_on_what_ships() -> None:
    end = last(replace(FuseDream.tiny(), scout="fresh").run())
    assert FuseDream.tiny().view(end)[0].pixels.shape == (1, 64, 64, 3)
