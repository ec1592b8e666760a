"""FuseDream's kernels and laws, on small random networks."""

import gc
import weakref
from dataclasses import fields, replace

import pytest
import torch
from small_nets import small_problem

from studio.core.runs import last, record
from studio.core.seeds import generator_from
from studio.core.snapshots import MAX_BYTES, nbytes
from studio.methods.fusedream import Dream, FuseDreamConfig, adam_step, blend, fusedream, pull
from studio.methods.scouting import top_k

SHORT = FuseDreamConfig(steps=4, basis=3, copies=3, samples=24)


def dreams(config: FuseDreamConfig = SHORT, seed: int = 1, members: int = 2) -> tuple[Dream, ...]:
    return record(fusedream(small_problem(members=members), config, generator_from(seed)))


def same(one: object, two: object) -> bool:
    if isinstance(one, tuple):
        return all(same(a, b) for a, b in zip(one, two, strict=True))  # type: ignore[call-overload]
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two  # type: ignore[arg-type]


def test_f9_a_basis_of_one_is_plain_ascent_from_the_best_scout() -> None:
    problem = small_problem()
    config = replace(SHORT, optimise="single", score="clip", latent_noise=0.0, learning_rate=0.05)
    run = record(fusedream(problem, config, generator_from(1)))
    scouts = next(iter(problem.candidates(config.samples, False, generator_from(0))))
    best = top_k(scouts[2], problem.target, 1)[:, 0]
    z, y = (part[best].clone().requires_grad_() for part in scouts[:2])
    adam = torch.optim.Adam([z, y], lr=0.05)
    (plain,) = problem.draws(0, generator_from(0))
    for step in range(1, config.steps + 1):
        assert torch.allclose(run[-1 - config.steps + step].z, z, atol=1e-6)
        assert torch.allclose(run[-1 - config.steps + step].y, y, atol=1e-6)
        adam.zero_grad()
        (-problem.score(problem.decode(z, y), plain).sum()).backward()
        adam.step()
        with torch.no_grad():
            z.clamp_(-config.clamp, config.clamp)


def test_f9_one_hot_weights_give_a_basis_latent_and_columns_sum_to_one() -> None:
    generator = generator_from(2)
    basis_z, basis_y = torch.randn(2, 4, 6, generator=generator), torch.randn(2, 4, 5, generator=generator)
    weights_z, weights_y = torch.zeros(2, 4, 6), torch.zeros(2, 4, 5)
    weights_z[:, 2], weights_y[:, 2] = 50.0, 50.0
    z, y = blend((basis_z, basis_y, weights_z, weights_y))
    assert torch.allclose(z, basis_z[:, 2], atol=1e-5) and torch.allclose(y, basis_y[:, 2], atol=1e-5)
    random = torch.randn(2, 4, 6, generator=generator)
    ones, _ = blend((torch.ones(2, 4, 6), basis_y, random, weights_y))
    assert torch.allclose(ones, torch.ones(2, 6), atol=1e-6)


@pytest.mark.parametrize("k,factor", [(5, 0.577), (10, 0.441)])
def test_f10_random_weights_shrink_the_latent(k: int, factor: float) -> None:
    generator = generator_from(3)
    basis = torch.randn(1, k, 200_000, generator=generator)
    z, _ = blend((basis, basis[:, :, :1], torch.randn(1, k, 200_000, generator=generator), basis[:, :, :1]))
    assert z.std().item() == pytest.approx(factor, abs=0.01)


def test_f12_the_best_iterate_is_kept_and_is_the_one_that_was_scored() -> None:
    problem = small_problem(members=2)
    end = last(fusedream(problem, replace(SHORT, steps=12, learning_rate=0.3), generator_from(4)))
    assert torch.equal(end.best_scores, end.scores.max(dim=1).values)
    with torch.no_grad():
        images = problem.decode(end.best_z, end.best_y)
        saved = ((images + 1) * 127.5).round() / 127.5 - 1
        for pictures, tolerance in ((images, 1e-5), (saved, 5e-3)):
            ruler = problem.draws(SHORT.yardstick, generator_from(0, "yardstick"))
            again = torch.cat([problem.score(pictures, draw) for draw in ruler], dim=1).mean(dim=1)
            assert torch.allclose(again, end.best_scores, atol=tolerance)


def test_f13_same_seed_same_bytes_and_another_seed_others() -> None:
    one, two, other = dreams(), dreams(), dreams(seed=2)
    assert all(same(tuple(getattr(a, f.name) for f in fields(a)), tuple(getattr(b, f.name) for f in fields(b)))
               for a, b in zip(one, two, strict=True))  # fmt: skip
    assert not torch.equal(one[-1].z, other[-1].z)


def test_ten_steps_are_five_and_five_more() -> None:
    whole = dreams(replace(SHORT, steps=6))[-1]
    half = dreams(replace(SHORT, steps=3))[-1]
    rest = record(fusedream(small_problem(members=2), replace(SHORT, steps=6), generator_from(99), start=half))
    assert [d.step for d in rest] == [4, 5, 6]
    assert torch.equal(rest[-1].z, whole.z) and torch.equal(rest[-1].scores, whole.scores)
    with pytest.raises(ValueError, match="^images"):
        next(fusedream(small_problem(members=1), SHORT, generator_from(0), start=half))


def test_chunked_copies_give_the_whole_gradient() -> None:
    whole, chunked = small_problem(members=2), small_problem(members=2, batch=3)
    images = whole.decode(*whole.random_latents(2, generator_from(1))).detach()
    (score, slope), (score_2, slope_2) = (pull(p, images, p.draws(8, generator_from(5))) for p in (whole, chunked))
    assert torch.allclose(score, score_2, atol=1e-6)
    assert torch.allclose(slope, slope_2, atol=1e-6 * slope.abs().max().item() + 1e-8)


def test_the_slope_is_the_slope_of_the_mean_score() -> None:
    problem = small_problem()
    images = problem.decode(*problem.random_latents(1, generator_from(1))).detach()
    draws = problem.draws(4, generator_from(5))
    _, slope = pull(problem, images, draws)
    leaf = images.requires_grad_()
    problem.score(leaf, draws[0]).mean().backward()
    assert leaf.grad is not None and torch.allclose(slope, leaf.grad, atol=1e-7)


def test_adam_step_is_adam() -> None:
    leaf = torch.randn(3, 4, generator=generator_from(6))
    moments, reference = (torch.zeros(3, 4), torch.zeros(3, 4)), leaf.clone().requires_grad_()
    adam = torch.optim.Adam([reference], lr=0.1, maximize=True)
    for step in range(1, 6):
        slope = torch.randn(3, 4, generator=generator_from(step))
        leaf, *moments = adam_step(leaf, slope, tuple(moments), step, 0.1)  # type: ignore[arg-type,assignment]
        reference.grad = slope
        adam.step()
    assert torch.allclose(leaf, reference, atol=1e-6)


def test_the_blend_climbs_and_a_random_start_climbs_too() -> None:
    for scout in ("bank", "none", "fresh"):
        run = dreams(replace(SHORT, steps=10, learning_rate=0.05, start_bias=3.0, scout=scout))
        assert (run[-1].best_scores > run[0].best_scores).all(), scout


def test_basis_latents_stay_clamped_and_snapshots_are_light_detached_and_silent_about_gradients() -> None:
    for snapshot in dreams(replace(SHORT, learning_rate=0.5)):
        assert snapshot.leaves[0].abs().max() <= SHORT.clamp
        assert not any(
            leaf.requires_grad for leaf in (*snapshot.leaves, *snapshot.moments, snapshot.z, snapshot.best_z)
        )
        assert nbytes(snapshot) < MAX_BYTES and torch.isfinite(snapshot.scores).all()


def test_start_bias_starts_at_the_best_scout_and_several_pictures_at_different_ones() -> None:
    near, paper = dreams(replace(SHORT, start_bias=9.0))[1], dreams(replace(SHORT, start_bias=0.0))[1]
    assert (near.leaves[2].mean(dim=2).argmax(dim=1) == 0).all()
    assert not torch.equal(near.best_z[0], near.best_z[1])
    assert paper.leaves[2][0, 0].mean() < near.leaves[2][0, 0].mean() - 8


def test_only_scouting_ends_with_a_sentence_and_too_few_scouts_are_refused() -> None:
    run = dreams(replace(SHORT, optimise="none"))
    assert all(snapshot.phase == "scout" for snapshot in run) and "scouting" in run[-1].outcome
    assert run[-1].step == run[-1].total == 0
    with pytest.raises(ValueError, match="^samples"):
        last(fusedream(small_problem(), replace(SHORT, samples=2), generator_from(0)))


def test_members_do_not_influence_each_other() -> None:
    pair, alone = small_problem("a red apple", 2), small_problem("a red apple", 1)
    other = small_problem("a blue boat", 1)
    pair.target = torch.cat((alone.target, other.target))
    config = replace(SHORT, latent_noise=0.0, optimise="single")
    both = last(fusedream(pair, config, generator_from(3)))
    for index, problem in enumerate((alone, other)):
        single = last(fusedream(problem, config, generator_from(3)))
        assert torch.allclose(both.scores[index], single.scores[0], atol=1e-5)


def test_closing_a_run_frees_it() -> None:
    problem = small_problem()
    kept = weakref.ref(problem)
    run = fusedream(problem, SHORT, generator_from(1))
    snapshot = next(run)
    del problem
    run.close()
    del run
    gc.collect()
    assert kept() is None and snapshot.step == 0


def test_gradients_are_on_for_the_caller_after_every_step() -> None:
    for _ in fusedream(small_problem(), SHORT, generator_from(1)):
        assert torch.is_grad_enabled()
