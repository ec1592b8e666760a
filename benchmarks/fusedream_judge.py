"""Measure FuseDream and its simpler arms by a judge network that no run ever optimised for.

For every prompt and seed each arm dreams one picture; the judge, another CLIP, finds the prompt's noun among all names
of its vocabulary. Scouts are drawn once a seed and shared by all arms. A second table starts from random latents and
compares the over-parameterised blend with a single latent by the held-out score.

    python benchmarks/fusedream_judge.py --out benchmarks/results/fusedream.json

A run that was stopped goes on from its scratch file.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from studio.core.runs import last  # noqa: E402
from studio.core.seeds import generator_from  # noqa: E402
from studio.files.weights import embedded  # noqa: E402
from studio.methods.fusedream import FuseDreamConfig, fusedream  # noqa: E402
from studio.nets.clip import Clip, load_clip  # noqa: E402
from studio.problems.augmentation import NEUTRAL, draw_views, views  # noqa: E402
from studio.problems.clip_image import Bank, ClipImage, joined, make_bank  # noqa: E402
from studio.problems.pairs import Pair, load_pair  # noqa: E402
from studio.problems.prompts import parse_prompt, prompt_target  # noqa: E402
from studio.studies.fusedream import FuseDream  # noqa: E402

ARMS = {
    "scouted": {"optimise": "none"},
    "plain_single": {"score": "clip", "optimise": "single"},
    "aug_single": {"optimise": "single"},
    "fusedream": {},
}
RANDOM_ARMS = {
    "random_single": {"optimise": "single", "scout": "none"},
    "random_blend": {"scout": "none", "start_bias": 0.0},
}
RANDOM_PROMPTS = 40


def main() -> None:
    """Read the command line, fill the scratch file arm by arm, and merge the figures into the results."""
    options = parsed()
    torch.set_num_threads(options.threads)
    prompts = json.loads((ROOT / "benchmarks" / "fusedream_prompts.json").read_text(encoding="utf-8"))["prompts"]
    prompts = prompts[: options.prompts] if options.prompts else prompts
    names = json.loads((embedded("judge").parent / "vocabulary.json").read_text(encoding="utf-8"))["names"]
    pair, judge = load_pair("embedded", "cpu"), load_clip(embedded("judge"))
    words = name_features(judge, names)
    settings = [options.steps, options.samples, options.copies, options.rate, options.bias, len(prompts), pair.digest]
    done = scratch(options.scratch, settings)
    for seed in range(options.seeds):
        bank = None
        for arm, changes in (ARMS | RANDOM_ARMS).items():
            key = f"{arm}/{seed}"
            if key in done or (arm in RANDOM_ARMS and seed > 0):
                continue
            if bank is None:
                bank = joined(list(make_bank(pair.decoder, pair.clip, options.samples, generator_from(seed, "scouts"))))
            some = prompts[:RANDOM_PROMPTS] if arm in RANDOM_ARMS else prompts
            began = time.monotonic()
            done[key] = dreamed(pair, bank, some, replace(config(options), **changes), options.batch, seed)
            rank_all(done[key], pair, judge, words, names, some)
            write(options.scratch, {"settings": settings, "done": done})
            top5 = statistics.mean(rank < 5 for rank in done[key]["ranks"])
            print(
                f"{key:18s} top-5 {top5:.3f}  score {statistics.mean(done[key]['scores']):.3f}  "
                f"held out {statistics.mean(done[key]['held_out']):.3f}  {time.monotonic() - began:.0f} s",
                flush=True,
            )
    merge(options, figures(done, options.seeds, len(names)), len(prompts))


def parsed() -> argparse.Namespace:
    """Return the command line's options; defaults are those of the committed table and of the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "fusedream.json")
    parser.add_argument("--scratch", type=Path, default=ROOT / ".work" / "fusedream_judge.json")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4096, help="scouts a seed")
    parser.add_argument("--copies", type=int, default=4, help="augmented views a step")
    parser.add_argument("--rate", type=float, default=FuseDream.learning_rate)
    parser.add_argument("--bias", type=float, default=FuseDream.start_bias)
    parser.add_argument("--prompts", type=int, default=0, help="only the first so many (0: all)")
    parser.add_argument("--batch", type=int, default=25, help="pictures dreamed at once")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def config(options: argparse.Namespace) -> FuseDreamConfig:
    """Return the settings all arms share."""
    return FuseDreamConfig(
        steps=options.steps, copies=options.copies, yardstick=options.copies, learning_rate=options.rate,
        start_bias=options.bias,
    )  # fmt: skip


def dreamed(
    pair: Pair, bank: Bank, prompts: list[str], settings: FuseDreamConfig, batch: int, seed: int
) -> dict[str, list]:
    """Return the best latents of every prompt with their own and their held-out scores."""
    found: dict[str, list] = {"z": [], "y": [], "scores": [], "held_out": []}
    for at in range(0, len(prompts), batch):
        target = torch.stack([prompt_target(pair.clip, parse_prompt(prompt)) for prompt in prompts[at : at + batch]])
        problem = ClipImage(pair.decoder, pair.clip, target, bank=bank)
        end = last(fusedream(problem, settings, generator_from(seed, "judge", at)))
        with torch.no_grad():
            held_out = problem.held_out(problem.decode(end.best_z, end.best_y))
        for name, values in (("z", end.best_z), ("y", end.best_y), ("scores", end.best_scores), ("held_out", held_out)):
            found[name] += values.tolist()
    return found


def name_features(judge: Clip, names: list[str]) -> Tensor:
    """Return one direction a name: the mean over backgrounds of the captions that hold it."""
    colours = json.loads((embedded("judge").parent / "vocabulary.json").read_text(encoding="utf-8"))["colours"]
    rows = []
    for name in names:
        noun = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
        rows.append(judge.encode_text([f"{noun} on a {colour} background" for colour in colours]).mean(dim=0))
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@torch.no_grad()
def rank_all(
    record: dict[str, list], pair: Pair, judge: Clip, words: Tensor, names: list[str], prompts: list[str]
) -> None:
    """Replace the latents by the rank of each prompt's name among all names, as the judge sees the picture."""
    images = pair.decoder(torch.tensor(record.pop("z")), torch.tensor(record.pop("y")))
    plain = draw_views(NEUTRAL, 1, images.shape[-1], judge.size, torch.Generator())
    features = judge.encode_images((views(images, plain, judge.size)[:, 0] + 1) / 2)
    similar = features @ words.T
    wanted = [names.index(name_of(prompt)) for prompt in prompts]
    record["ranks"] = [int((row > row[index]).sum()) for row, index in zip(similar, wanted, strict=True)]


def name_of(prompt: str) -> str:
    """Return the noun of 'a NAME on a COLOUR background'."""
    return prompt.split(" on a")[0].removeprefix("an ").removeprefix("a ").strip()


def figures(done: dict[str, dict[str, list]], seeds: int, vocabulary: int) -> dict[str, float]:
    """Return the table: retrieval by arm, its spread over seeds, and the random-start comparison."""
    table: dict[str, float] = {"vocabulary": vocabulary}
    for arm in ARMS:
        for top in (1, 5):
            shares = [statistics.mean(rank < top for rank in done[f"{arm}/{seed}"]["ranks"]) for seed in range(seeds)]
            table[f"judge_top{top}_{arm}"] = round(statistics.mean(shares), 4)
            table[f"judge_top{top}_{arm}_spread"] = round(max(shares) - min(shares), 4)
        table[f"held_out_{arm}"] = mean_of(done, arm, "held_out", seeds)
        table[f"score_{arm}"] = mean_of(done, arm, "scores", seeds)
    blend, single = done["random_blend/0"], done["random_single/0"]
    for name, key in (("f11_win_rate", "held_out"), ("f11_win_rate_own_score", "scores")):
        wins = [a > b for a, b in zip(blend[key], single[key], strict=True)]
        table[name] = round(statistics.mean(wins), 4)
    table["f11_prompts"] = len(blend["scores"])
    for arm in RANDOM_ARMS:
        table[f"held_out_{arm}"] = mean_of(done, arm, "held_out", 1)
        table[f"judge_top5_{arm}"] = round(statistics.mean(rank < 5 for rank in done[f"{arm}/0"]["ranks"]), 4)
    return table


def mean_of(done: dict[str, dict[str, list]], arm: str, name: str, seeds: int) -> float:
    """Return the mean of one column of an arm over all seeds."""
    return round(statistics.mean(v for seed in range(seeds) for v in done[f"{arm}/{seed}"][name]), 4)


def scratch(path: Path, settings: list) -> dict[str, dict[str, list]]:
    """Return what an earlier run with the same settings and weights finished."""
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["done"] if record["settings"] == settings else {}


def merge(options: argparse.Namespace, table: dict[str, float], prompts: int) -> None:
    """Write the figures into the results file, leaving figures of other benchmarks as they are."""
    record = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    record["command"] = "python benchmarks/fusedream_judge.py --out benchmarks/results/fusedream.json"
    record["seeds"] = list(range(options.seeds))
    record["machine"] = {"cpu": cpu(), "cores": os.cpu_count(), "threads": options.threads, "torch": torch.__version__}
    record["settings"] = {
        "prompts": prompts, "steps": options.steps, "scouts": options.samples, "copies": options.copies,
        "learning_rate": options.rate, "start_bias": options.bias,
        "note": "fewer steps and views than the study's defaults, so that the whole table fits in half an hour",
    }  # fmt: skip
    record["figures"] = record.get("figures", {}) | table
    write(options.out, record)
    print(json.dumps(table, indent=1))


def write(path: Path, record: dict) -> None:
    """Write a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def cpu() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
