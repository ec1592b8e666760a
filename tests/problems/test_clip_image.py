"""FuseDream's problem: the score, prompts, and the bank of pictures seen before."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_nets import small_clip, small_decoder, small_problem

from studio.core.seeds import generator_from
from studio.methods.scouting import top_k
from studio.problems.augmentation import NEUTRAL, TRAIN
from studio.problems.clip_image import Bank, joined, load_bank, make_bank, random_points, save_bank
from studio.problems.prompts import Phrase, parse_prompt, prompt_target


def images_of(problem: object, n: int) -> torch.Tensor:
    return problem.decode(*problem.random_latents(n, generator_from(1)))  # type: ignore[attr-defined]


def test_f1_without_augmentation_the_score_is_plain_clip() -> None:
    problem = small_problem(members=3, policy=NEUTRAL)
    images = images_of(problem, 3)
    (draw,) = problem.draws(5, generator_from(2))
    plain = problem.clip.encode_images((images + 1) / 2) @ problem.target[0]
    assert problem.score(images, draw).shape == (3, 5)
    assert (problem.score(images, draw) - plain[:, None]).abs().max() < 1e-6
    assert (problem.score(images, problem.draws(0, generator_from(2))[0])[:, 0] - plain).abs().max() < 1e-6


def test_f2_the_error_of_a_mean_over_views_shrinks_as_the_root_of_their_number() -> None:
    problem = small_problem()
    image = images_of(problem, 1)
    scores = torch.cat([problem.score(image, draw) for draw in problem.draws(5_000, generator_from(3))], dim=1)[0]
    means = scores.view(100, 50).mean(dim=1)
    assert means.std().item() == pytest.approx(scores.std().item() / 50**0.5, rel=0.15)


def test_draws_come_in_batches_that_fit() -> None:
    problem = small_problem(batch=3)
    assert [len(draw) for draw in problem.draws(8, generator_from(0))] == [3, 3, 2]
    assert problem.policy == TRAIN


def test_networks_stay_frozen() -> None:
    problem = small_problem()
    z, y = problem.random_latents(1, generator_from(1))
    z.requires_grad_()
    problem.score(problem.decode(z, y), problem.draws(2, generator_from(2))[0]).sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0
    for network in (problem.decoder, problem.clip.network):
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_f7_the_bank_gives_brute_forces_top_five() -> None:
    generator = generator_from(11)
    features = F.normalize(torch.randn(10_000, 64, generator=generator), dim=1).half()
    features[77] = features[4321]
    target = F.normalize(torch.randn(3, 64, generator=generator), dim=1)
    target[1] = features[77].float()
    brute = []
    for row in target:
        scores = (row[None] @ features.float().T)[0].tolist()
        brute.append(sorted(range(10_000), key=lambda i: (-scores[i], i))[:5])
    found = top_k(features, target, 5)
    assert found[1, :2].tolist() == [77, 4321]
    for row, expected in zip(found.tolist(), brute, strict=True):
        assert row == expected


def test_f7_a_bank_holds_what_brute_force_would_compute() -> None:
    decoder, clip = small_decoder(), small_clip()
    bank = joined(list(make_bank(decoder, clip, 100, generator_from(4), chunk=40)))
    generator, fresh = generator_from(4), []
    for count in (16, 40, 40, 4):
        z, classes = random_points(decoder, count, generator)
        fresh.append((z.half().float(), decoder.embeddings.weight.T[classes]))
    z, y = (torch.cat(part) for part in zip(*fresh, strict=True))
    with torch.no_grad():
        alone = torch.cat([clip.encode_images((decoder(z[i : i + 1], y[i : i + 1]) + 1) / 2) for i in range(100)])
    assert (bank.features.float() - alone).abs().max() < 1e-3
    assert len(bank) == 100 and bank.z.dtype == torch.float16


def test_f8_the_best_of_more_scouts_is_better() -> None:
    decoder, clip = small_decoder(), small_clip()
    features = joined(list(make_bank(decoder, clip, 2000, generator_from(8)))).features.float()
    targets = F.normalize(torch.randn(40, features.shape[1], generator=generator_from(9)), dim=1)
    scores = targets @ features.T
    sizes = (10, 100, 1000)
    expected = torch.tensor([scores.unfold(1, m, m).amax(dim=2).mean() for m in sizes])
    assert (expected.diff() > 0).all()
    x, y = torch.tensor(sizes).log(), expected
    assert torch.corrcoef(torch.stack((x, y)))[0, 1] ** 2 > 0.9


def test_a_bank_survives_saving_and_a_stale_or_broken_one_is_not_used(tmp_path: Path) -> None:
    bank = joined(list(make_bank(small_decoder(), small_clip(), 20, generator_from(4))))
    path = tmp_path / "deep" / "bank.safetensors"
    save_bank(bank, path, "abc")
    again = load_bank(path, "abc")
    assert again is not None and torch.equal(again.z, bank.z) and torch.equal(again.features, bank.features)
    assert load_bank(path, "other weights") is None and load_bank(tmp_path / "none", "abc") is None
    path.write_bytes(path.read_bytes()[:-100])
    assert load_bank(path, "abc") is None
    assert [p.name for p in path.parent.iterdir()] == ["bank.safetensors"]


def test_a_missing_bank_is_made_while_scouting_and_left_behind() -> None:
    problem = small_problem(chunk=32)
    sizes = [len(z) for z, _, _ in problem.candidates(70, False, generator_from(0))]
    assert sizes == [16, 32, 22] and isinstance(problem.bank, Bank)
    assert [len(z) for z, _, _ in problem.candidates(70, False, generator_from(0))] == [70]
    assert [len(z) for z, _, _ in problem.candidates(20, True, generator_from(0))] == [16, 4]


@pytest.mark.parametrize(
    "prompt,phrases",
    [
        ("a fox:2 | blue background:1 | blurry:-0.5", [("a fox", 2), ("blue background", 1), ("blurry", -0.5)]),
        ("note: a fox", [("note: a fox", 1)]),
        ("a fox : 2.5", [("a fox", 2.5)]),
        ("||a fox|", [("a fox", 1)]),
        ("a\x00fox\ud800:+.5", [("a fox", 0.5)]),
        ("http://x.org:http", [("http://x.org:http", 1)]),
        ("\u202eשלום\u202c", [("\u202eשלום\u202c", 1)]),
    ],
)
def test_prompts_are_read(prompt: str, phrases: list[tuple[str, float]]) -> None:
    assert parse_prompt(prompt) == tuple(Phrase(*phrase) for phrase in phrases)


@pytest.mark.parametrize("prompt", ["", " \t", "|", ":2", "a:0", "\x00\x01", "x" * 10_000, "a:1e5000", "a:101"])
def test_prompts_that_say_nothing_are_refused_in_a_sentence(prompt: str) -> None:
    if prompt in (":2", "a:1e5000"):
        assert parse_prompt(prompt)[0].text == prompt
        return
    with pytest.raises(ValueError, match="^prompt"):
        parse_prompt(prompt)


def test_the_target_is_linear_in_the_texts() -> None:
    clip = small_clip()
    fox, blur = clip.encode_text(["a fox"])[0], clip.encode_text(["blurry"])[0]
    mixed = prompt_target(clip, parse_prompt("a fox:2 | blurry:-0.5"))
    assert torch.allclose(mixed, (2 * fox - 0.5 * blur) / 2.5, atol=1e-6)
    assert torch.allclose(prompt_target(clip, parse_prompt("a fox")), fox, atol=1e-6)
