"""FuseDream and its simpler arms, judged by a network that no run ever optimised for.

For every prompt and seed each arm dreams one picture; the judge, another CLIP, finds the prompt's noun among all names
of its vocabulary. Scouts are drawn once a seed and shared by all arms. A second comparison starts from random latents:
the over-parameterised blend against a single latent, by the held-out score. A run that was stopped goes on from its
scratch file.
"""

__all__ = ["SEEDS", "judged"]

import json
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from studio.core.runs import last
from studio.core.seeds import generator_from
from studio.files.weights import embedded
from studio.methods.fusedream import FuseDreamConfig, fusedream
from studio.nets.clip import Clip, load_clip
from studio.problems.augmentation import NEUTRAL, draw_views, views
from studio.problems.clip_image import Bank, ClipImage, joined, load_bank, make_bank, save_bank
from studio.problems.pairs import Pair, load_pair
from studio.problems.prompts import parse_prompt, prompt_target
from studio.studies.fusedream import FuseDream

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".work"
SEEDS = 3
ARMS: dict[str, dict] = {
    "scouted": {"optimise": "none"},
    "plain_single": {"score": "clip", "optimise": "single"},
    "aug_single": {"optimise": "single"},
    "fusedream": {},
}
RANDOM_ARMS: dict[str, dict] = {
    "random_single": {"optimise": "single", "scout": "none"},
    "random_blend": {"scout": "none", "start_bias": 0.0},
}
RANDOM_PROMPTS = 40


@dataclass(frozen=True)
class Table:
    """The settings of the whole table; steps, views and scouts are below the study's, so that it takes minutes."""

    steps: int = 40
    scouts: int = 4096
    copies: int = 4
    learning_rate: float = FuseDream.learning_rate
    start_bias: float = FuseDream.start_bias
    batch: int = 20
    prompts: int = 100


def judged(table: Table | None = None) -> dict[str, object]:
    """Return the figures of all arms over all prompts and seeds, on one process a core."""
    table = table or Table()
    key = json.dumps([asdict(table), load_pair("embedded", "cpu").digest, _judge_digest()])
    scratch = WORK / "fusedream_judge.json"
    done = _done(scratch, key)
    jobs = [(arm, seed) for seed in range(SEEDS) for arm in ARMS] + [(arm, 0) for arm in RANDOM_ARMS]
    todo = [(arm, seed) for arm, seed in jobs if f"{arm}/{seed}" not in done]
    for seed in {seed for _, seed in todo}:
        _bank(seed, table.scouts)
    began = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_job, table, arm, seed): f"{arm}/{seed}" for arm, seed in todo}
        for future in as_completed(running):
            name = running[future]
            done[name] = future.result()
            _write(scratch, {"key": key, "done": done})
            found = statistics.mean(rank < 5 for rank in done[name]["ranks"])
            print(f"{time.monotonic() - began:6.0f} s  {name:16} judge top-5 {found:.1%}", flush=True)
    return _figures(done) | {"judge_settings": asdict(table)}


def _job(table: Table, arm: str, seed: int) -> dict[str, list]:
    """Return the scores and the judge's ranks of one arm and seed."""
    torch.set_num_threads(1)
    pair, judge = load_pair("embedded", "cpu"), load_clip(embedded("judge"))
    chosen = _prompts()[: table.prompts]
    chosen = chosen[:RANDOM_PROMPTS] if arm in RANDOM_ARMS else chosen
    settings = FuseDreamConfig(
        steps=table.steps, copies=table.copies, yardstick=table.copies, learning_rate=table.learning_rate,
        start_bias=table.start_bias,
    )  # fmt: skip
    return _dreamed(pair, judge, chosen, replace(settings, **(ARMS | RANDOM_ARMS)[arm]), table, seed)


def _dreamed(
    pair: Pair, judge: Clip, prompts: list[str], settings: FuseDreamConfig, table: Table, seed: int
) -> dict[str, list]:
    found: dict[str, list] = {"scores": [], "held_out": [], "ranks": []}
    names = _vocabulary()["names"]
    words = _name_features(judge, names)
    for at in range(0, len(prompts), table.batch):
        some = prompts[at : at + table.batch]
        target = torch.stack([prompt_target(pair.clip, parse_prompt(prompt)) for prompt in some])
        problem = ClipImage(pair.decoder, pair.clip, target, bank=_bank(seed, table.scouts))
        end = last(fusedream(problem, settings, generator_from(seed, "judge", at)))
        with torch.no_grad():
            images = problem.decode(end.best_z, end.best_y)
            found["held_out"] += problem.held_out(images).tolist()
        found["scores"] += end.augmented.amax(dim=1).tolist()
        found["ranks"] += _ranks(judge, images, words, [names.index(_noun(prompt)) for prompt in some])
    return found


@torch.no_grad()
def _ranks(judge: Clip, images: Tensor, words: Tensor, wanted: list[int]) -> list[int]:
    """Return how many names the judge finds more fitting than the wanted one, for each picture."""
    plain = draw_views(NEUTRAL, 1, images.shape[-1], judge.size, torch.Generator())
    similar = judge.encode_images((views(images, plain, judge.size)[:, 0] + 1) / 2) @ words.T
    return [int((row > row[index]).sum()) for row, index in zip(similar, wanted, strict=True)]


def _name_features(judge: Clip, names: list[str]) -> Tensor:
    """Return one direction a name: the mean over background colours of the captions that hold it."""
    colours = _vocabulary()["colours"]
    captions = [f"{_article(name)} on {_article(colour)} background" for name in names for colour in colours]
    features = judge.encode_text(captions).unflatten(0, (len(names), len(colours))).mean(dim=1)
    return torch.nn.functional.normalize(features, dim=1)


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _noun(prompt: str) -> str:
    """Return the noun of 'a NAME on a COLOUR background'."""
    return prompt.split(" on a")[0].removeprefix("an ").removeprefix("a ").strip()


def _figures(done: dict[str, dict[str, list]]) -> dict[str, object]:
    """Return the table: retrieval by arm in percent, its spread over seeds, and the random-start comparison."""
    figures: dict[str, object] = {"vocabulary": len(_vocabulary()["names"])}
    for arm in ARMS:
        for top in (5, 1):
            ranks = [done[f"{arm}/{seed}"]["ranks"] for seed in range(SEEDS)]
            by_seed = [100 * statistics.mean(rank < top for rank in row) for row in ranks]
            figures[f"judge_top{top}_{arm}"] = round(statistics.mean(by_seed), 2)
            figures[f"judge_top{top}_{arm}_by_seed"] = [round(value, 2) for value in by_seed]
        for column in ("held_out", "scores"):
            values = [value for seed in range(SEEDS) for value in done[f"{arm}/{seed}"][column]]
            figures[f"{column}_{arm}"] = round(statistics.mean(values), 4)
    blend, single = done["random_blend/0"], done["random_single/0"]
    wins = [a > b for a, b in zip(blend["held_out"], single["held_out"], strict=True)]
    figures["random_start_prompts"] = len(wins)
    figures["random_start_blend_wins_percent"] = round(100 * statistics.mean(wins), 2)
    for arm in RANDOM_ARMS:
        figures[f"held_out_{arm}"] = round(statistics.mean(done[f"{arm}/0"]["held_out"]), 4)
        figures[f"judge_top5_{arm}"] = round(100 * statistics.mean(rank < 5 for rank in done[f"{arm}/0"]["ranks"]), 2)
    return figures


@cache
def _prompts() -> list[str]:
    return json.loads((ROOT / "benchmarks" / "fusedream_prompts.json").read_text(encoding="utf-8"))["prompts"]


@cache
def _vocabulary() -> dict[str, list[str]]:
    return json.loads((embedded("judge").parent / "vocabulary.json").read_text(encoding="utf-8"))


@cache
def _bank(seed: int, scouts: int) -> Bank:
    """Return the scouts of a seed, made once and kept beside the scratch file."""
    pair, path = load_pair("embedded", "cpu"), WORK / f"scouts-{seed}-{scouts}.safetensors"
    kept = load_bank(path, pair.digest)
    if kept is None:
        kept = joined(list(make_bank(pair.decoder, pair.clip, scouts, generator_from(seed, "scouts"))))
        save_bank(kept, path, pair.digest)
    return kept


def _judge_digest() -> int:
    return (embedded("judge") / "open_clip_model.safetensors").stat().st_mtime_ns


def _done(path: Path, key: str) -> dict[str, dict[str, list]]:
    """Return what an earlier run with the same settings and weights finished."""
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["done"] if record["key"] == key else {}


def _write(path: Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps(record), encoding="utf-8")
    path.with_suffix(".part").replace(path)
