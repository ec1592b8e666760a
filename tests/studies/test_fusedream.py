"""The FuseDream study: knobs to pictures, odd prompts, memory, banks, and the published weights' formats."""

import gc
import json
import weakref
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_nets import small_clip, small_decoder

from studio.core.runs import last, record
from studio.nets.biggan import BigGAN, BigGANConfig, unfold_spectral_norm
from studio.nets.clip import VIT_B_32
from studio.nets.torchvision_compat import import_open_clip
from studio.problems import pairs
from studio.problems.pairs import Pair, load_pair
from studio.scenes import Curves, Images
from studio.studies import fusedream as study_file
from studio.studies.fusedream import FuseDream


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Let the study run on small networks, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pair = Pair(small_decoder(), small_clip(), "0" * 64, 40)
    monkeypatch.setattr(study_file, "load_pair", lambda *_: pair)
    return pair


def single_curves(study: FuseDream) -> tuple[np.ndarray, np.ndarray]:
    alone = replace(study, images=1)
    curves = alone.view(record(alone.run())[-1])[1]
    return curves.series[0].y, curves.series[1].y


def test_a_prompt_becomes_pictures_and_curves(small: Pair) -> None:
    study = replace(FuseDream.tiny(), images=2)
    run = record(study.run())
    images, curves = study.view(run[-1])
    assert isinstance(images, Images) and images.pixels.shape == (2, 32, 32, 3) and images.pixels.dtype == np.uint8
    assert len(images.captions) == 2 and images.captions[0].startswith("AugCLIP ")
    assert isinstance(curves, Curves) and len(curves.series) == 2
    for series in curves.series:
        assert len(series.x) == len(series.y) == study.steps + 1
    score, best = single_curves(study)
    assert np.array_equal(best, np.maximum.accumulate(score))
    assert "not optimised for" in run[-1].outcome and not any(s.outcome for s in run[:-1])


def test_the_picture_shown_scores_what_its_caption_says(small: Pair) -> None:
    study = replace(FuseDream.tiny(), steps=6, learning_rate=0.2, score="clip")
    end = last(study.run())
    pixels = torch.from_numpy(study.view(end)[0].pixels).permute(0, 3, 1, 2).float() / 255
    target = small.clip.encode_text([study.prompt])[0]
    assert (small.clip.encode_images(pixels) @ target).item() == pytest.approx(end.best_scores.item(), abs=5e-3)


def test_the_bank_is_made_once_and_kept(small: Pair) -> None:
    study = FuseDream.tiny()
    first, again = record(study.run()), record(study.run())
    assert [s.scouted for s in first if s.phase == "scout"] == [16, 40]
    assert [s.scouted for s in again if s.phase == "scout"] == [40]
    assert torch.equal(first[-1].best_z, again[-1].best_z)
    assert replace(small, digest="1" * 64).bank() is None


@pytest.mark.parametrize("score", ["augclip", "clip"])
@pytest.mark.parametrize("optimise", ["blend", "single", "none"])
@pytest.mark.parametrize("scout", ["bank", "fresh", "none"])
def test_every_arm_runs(small: Pair, score: str, optimise: str, scout: str) -> None:
    study = replace(FuseDream.tiny(), score=score, optimise=optimise, scout=scout)
    end = last(study.run())
    assert end.outcome and study.view(end)


def test_a_run_goes_on_from_a_snapshot(small: Pair) -> None:
    list(FuseDream.tiny().run())
    whole = last(replace(FuseDream.tiny(), steps=6).run())
    rest = last(replace(FuseDream.tiny(), steps=6).run(start=last(FuseDream.tiny().run())))
    assert torch.equal(whole.best_z, rest.best_z)


def test_closing_frees_the_run(small: Pair) -> None:
    run = FuseDream.tiny().run()
    next(run)
    problem = weakref.ref(run.gi_frame.f_locals["problem"])
    run.close()
    del run
    gc.collect()
    assert problem() is None


def odd_prompts() -> list[str]:
    letters = [
        "",
        " ",
        "\x00",
        "\x1b[31m",
        "\u202eabc",
        "שלום עולם",
        "سلام",
        "🦊",
        "👨‍👩‍👧",
        "\ud800",
        "a\ud800b",
        "<b>fox</b>",
    ]
    letters += ["<script>alert(1)</script>", "&lt;fox&gt;", "|", "||", ":", ":2", "a:b", "a:2", "a:-2", "a:0", "a:nan"]
    letters += ["a:inf", "a:1e9", "a:999999", "%s %d {}", "../../etc/passwd", "'; DROP TABLE", '"', "\\", "\n\n", "\t"]
    letters += ["<start_of_text>", "<end_of_text>", "\ufeff", "\u200b", "\u0301", "ﷺ", "Ⅷ", "½", "ß", "İ", "\U0010ffff"]
    found = [*letters, *(x * 40 for x in letters), *(f"a fox {x}" for x in letters), *(f"{x} | fox:2" for x in letters)]
    return [*found, "x" * 10_000, "a fox " * 2000, *(chr(code) for code in range(32))][:210]


def test_200_odd_prompts_give_a_study_or_one_clear_sentence(small: Pair) -> None:
    prompts, made = odd_prompts(), []
    assert len(prompts) >= 200
    for prompt in prompts:
        try:
            made.append(FuseDream(prompt=prompt, steps=1, copies=1, device="cpu"))
        except ValueError as fault:
            assert str(fault).startswith("prompt") and "\n" not in str(fault) and len(str(fault)) < 200
    assert 80 < len(made) < len(prompts)
    for study in made:
        target = study_file.prompt_target(small.clip, study_file.parse_prompt(study.prompt))
        assert torch.isfinite(target).all()


def test_memory_is_said_before_and_refused_when_short(small: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FuseDream(device="cpu").forecast().endswith("all views of a step at once.")
    base, view = pairs.needed_bytes("embedded", 1, 8)
    monkeypatch.setattr(study_file, "free_memory", lambda _: int((base + 3 * view) / study_file.SHARE) + 1000)
    assert "3 views at a time" in FuseDream(device="cpu").forecast()
    monkeypatch.setattr(study_file, "free_memory", lambda _: base)
    with pytest.raises(ValueError, match="take fewer images"):
        FuseDream(device="cpu").run()


def test_missing_weights_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    load_pair.cache_clear()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin and config\.json") as fault:
        FuseDream(weights="biggan-deep-128", device="cpu").run()
    assert "\n" not in str(fault.value)


def published_weights(folder: Path, **changes: int) -> None:
    """Write BigGAN-deep 128 and CLIP ViT-B/32, at full size, random, in exactly the published formats."""
    torch.manual_seed(0)
    biggan = folder / "biggan-deep-128"
    biggan.mkdir(parents=True)
    config = BigGANConfig(**changes)  # type: ignore[arg-type]
    torch.save(unfold_spectral_norm(BigGAN(config).state_dict()), biggan / "pytorch_model.bin")
    (biggan / "config.json").write_text(json.dumps(asdict(config)), encoding="utf-8")
    clip = folder / "clip-vit-b-32"
    clip.mkdir()
    with torch.device("meta"):
        state = import_open_clip().CLIP(**VIT_B_32).state_dict()
    random = {name: 0.02 * torch.randn(value.shape) for name, value in state.items()}
    save_file(random, clip / "open_clip_model.safetensors")
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": VIT_B_32}), encoding="utf-8")


def test_published_formats_at_full_size_take_a_blend_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published_weights(tmp_path / "weights")
    monkeypatch.setenv("STUDIO_WEIGHTS", str(tmp_path / "weights"))
    load_pair.cache_clear()
    study = FuseDream(weights="biggan-deep-128", steps=1, copies=1, basis=2, scout="none", device="cpu")
    run = record(study.run())
    assert torch.isfinite(run[-1].scores).all() and run[-1].outcome
    assert study.view(run[-1])[0].pixels.shape == (1, 128, 128, 3)
    load_pair.cache_clear()
