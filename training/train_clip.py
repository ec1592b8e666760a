"""Train the small CLIP, or the judge, on captioned composites; the same command goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from composites import COLOURS, Factors, Sprites, caption, compose, concepts, held_out, load_sprites, with_article
from torch import Tensor, nn

from studio.nets.torchvision_compat import import_open_clip

__all__ = ["MODELS", "build", "evaluate", "main"]

VOCABULARY = 49408
MODELS: dict[str, dict] = {
    "clip": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "patch_size": 8, "head_width": 32},
        "text_cfg": {"context_length": 24, "vocab_size": VOCABULARY, "width": 64, "heads": 2, "layers": 2},
    },
    "judge": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 20, "head_width": 64},
        "text_cfg": {"context_length": 24, "vocab_size": VOCABULARY, "width": 48, "heads": 3, "layers": 2},
    },
}
SEEDS = {"clip": 11, "judge": 29}


@dataclass(frozen=True)
class Plan:
    """How long and on what one training run goes."""

    model: str
    steps: int
    batch: int
    rate: float
    names: str
    start: Path | None


def main() -> None:
    """Read the command line, train, and write checkpoints and curves into the run's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with emoji/ and pixel_tiles/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the curves")
    parser.add_argument("--model", choices=sorted(MODELS), required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument(
        "--names",
        choices=["wide", "chosen"],
        default="wide",
        help="wide: everything that has a name; chosen: the vocabulary, told apart from all its names",
    )
    parser.add_argument("--start", type=Path, help="checkpoint of an earlier run to take the first weights from")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(
        arguments.data,
        arguments.out,
        Plan(arguments.model, arguments.steps, arguments.batch, arguments.rate, arguments.names, arguments.start),
    )


def build(model: str, tokens: int = VOCABULARY) -> nn.Module:
    """Return an untrained open_clip.CLIP; while training its vocabulary holds only the tokens that occur."""
    open_clip = import_open_clip()
    config = MODELS[model]
    text = {**config["text_cfg"], "vocab_size": tokens}
    return open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text)


class Captions:
    """Turns captions into compact token numbers: only tokens that occur, in the vocabulary's order."""

    def __init__(self, sprites: Sprites) -> None:
        open_clip = import_open_clip()
        self.tokenizer = open_clip.SimpleTokenizer(context_length=24)
        words = {*sprites.names, *COLOURS, *(w for row in sprites.keywords for w in row)}
        words |= {
            "a an the on and in of with no at picture photo drawing background small little large big",
            "top bottom left right corner striped checked dotted gradient plain , .",
        }
        self.used = self.tokenizer(sorted(words)).unique()

    def __call__(self, texts: list[str]) -> Tensor:
        """Return compact token numbers (n, 24); the end token stays the largest, as pooling expects."""
        return torch.searchsorted(self.used, self.tokenizer(texts)).clamp_max(len(self.used) - 1)


def train(data: Path, out: Path, plan: Plan) -> None:
    """Run the plan to its end, saving every two minutes."""
    out.mkdir(parents=True, exist_ok=True)
    sprites = load_sprites(data)
    captions = Captions(sprites)
    torch.manual_seed(SEEDS[plan.model])
    network = build(plan.model, len(captions.used))
    decay = [p for p in network.parameters() if p.dim() > 1]
    rest = [p for p in network.parameters() if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
        lr=plan.rate,
        betas=(0.9, 0.98),
    )
    state = {"step": 0, "seconds": 0.0, "curve": []}
    checkpoint = out / "checkpoint.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        state = saved["state"]
    elif plan.start:
        network.load_state_dict(torch.load(plan.start, weights_only=True)["network"])
    mask = held_out(len(sprites.names), SEEDS[plan.model])
    rng = random.Random(SEEDS[plan.model] + state["step"])
    torch.manual_seed(SEEDS[plan.model] + state["step"])
    weights = concept_weights(sprites, plan.names)
    chosen = sprites.chosen() if plan.names == "chosen" else []
    known = captions([with_article(sprites.names[name]) for name in chosen]) if chosen else captions([""])[:0]
    place = torch.zeros(len(sprites.names), dtype=torch.long)
    place[chosen] = torch.arange(len(chosen))
    last = saved_at = time.time()
    for step in range(state["step"], plan.steps):
        warm = min(1.0, (step + 1) / 100)
        progress = step / plan.steps
        for group in optimiser.param_groups:
            group["lr"] = (
                plan.rate * warm * (0.02 + 0.98 * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item()))
            )
        images, texts, names = draw(sprites, weights, mask, plan.batch, rng, few=plan.names == "chosen")
        images = degrade(augment(images))
        with short_numbers():
            left = network.encode_image(images)
            right = network.encode_text(torch.cat((captions(texts), known)))
        left, right = F.normalize(left.float(), dim=-1), F.normalize(right.float(), dim=-1)
        right, table = right[: len(left)], right[len(left) :]
        logits = network.logit_scale.exp() * left @ right.T
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        if len(table):
            loss = loss + F.cross_entropy(network.logit_scale.exp() * left @ table.T, place[names])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            network.logit_scale.clamp_(0, 4.6)
        now = time.time()
        state["seconds"] += now - last
        last = now
        state["step"] = step + 1
        if step % 20 == 0:
            accuracy = (logits.argmax(1) == target).float().mean().item()
            state["curve"].append([step, round(loss.item(), 4), round(accuracy, 4)])
            print(
                f"{step:5d} loss {loss.item():.3f} top-1 in batch {accuracy:.3f} {state['seconds']:.0f} s", flush=True
            )
        if now - saved_at > 120 or step + 1 == plan.steps:
            saved_at = now
            save(
                checkpoint,
                {
                    "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "state": state,
                    "used": captions.used,
                    "names": list(sprites.names),
                },
            )
            (out / "curve.json").write_text(json.dumps(state), encoding="utf-8")
    figures = evaluate(network, captions, sprites, mask)
    (out / "figures.json").write_text(
        json.dumps(
            {**figures, "steps": state["step"], "batch": plan.batch, "seconds": round(state["seconds"])}, indent=1
        ),
        encoding="utf-8",
    )
    print(figures)


@contextmanager
def short_numbers() -> Iterator[None]:
    """Compute in bfloat16, but attention in 32 bits: its backward pass is several times slower in bfloat16 on a CPU."""
    plain = F.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, *rest, **named) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return plain(query.float(), key.float(), value.float(), *rest, **named)

    F.scaled_dot_product_attention = attention
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        F.scaled_dot_product_attention = plain


def save(path: Path, record: dict) -> None:
    """Write a checkpoint so that an interruption leaves the old one whole."""
    torch.save(record, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def concept_weights(sprites: Sprites, which: str) -> Tensor:
    """Return how often each name is drawn: our concepts most, tiles least or, like all unchosen names, never."""
    weights = torch.ones(len(sprites.names))
    tile = torch.tensor([name.startswith("pixel ") for name in sprites.names])
    weights[tile] = 0.25
    if which == "chosen":
        weights = torch.zeros(len(sprites.names))
        weights[sprites.chosen()] = 1.0
    weights[: len(concepts())] = 6.0 if which == "wide" else 3.0
    return weights


def draw(
    sprites: Sprites, weights: Tensor, mask: Tensor, n: int, rng: random.Random, few: bool
) -> tuple[Tensor, list[str], Tensor]:
    """Return a batch of composites with captions: different names, no held-out combination.

    With ``few``, two batches in three show two colours only, so that the name alone tells the pictures apart.
    """
    names = torch.multinomial(weights, n)
    order = torch.randperm(len(sprites.name_of))
    where = torch.full((len(sprites.names),), -1)
    where[sprites.name_of[order]] = order
    index = where[names]
    chance = (~mask[names]).float() + 1e-9
    if few and rng.random() < 0.67:
        here = torch.full((len(COLOURS),), 1e-5)
        here[torch.randperm(len(COLOURS))[:2]] = 1.0
        chance = (~mask[names]) * here + 1e-12
    first = torch.multinomial(chance, 1).flatten()
    second = torch.multinomial(chance.scatter(1, first[:, None], 0.0), 1).flatten()
    pattern = torch.randint(1, 9, (n,)) * (torch.rand(n) < 0.35)
    size = torch.where(torch.rand(n) < 0.25, 0.4 + 0.6 * torch.rand(n), 0.7 + 0.3 * torch.rand(n))
    room = (1.05 - size) / 2
    x, y = (torch.rand(2, n) * 2 - 1) * room
    palette = torch.tensor(list(COLOURS.values()))
    jitter = 0.06 * torch.randn(2, n, 3)
    factors = Factors(
        (palette[first] + jitter[0]).clamp(0, 1),
        (palette[second] + jitter[1]).clamp(0, 1),
        pattern,
        0.12 + 0.2 * torch.rand(n),
        x,
        y,
        size,
    )
    images = compose(sprites.pictures[index], factors)
    colours = list(COLOURS)
    texts = [
        caption(
            rng,
            sprites.names[names[i]],
            sprites.keywords[index[i]],
            colours[first[i]],
            colours[second[i]],
            int(pattern[i]),
            float(x[i]),
            float(y[i]),
            float(size[i]),
        )
        for i in range(n)
    ]
    return images, texts, names


def augment(images: Tensor) -> Tensor:
    """Return the batch with two fifths of it brightened, desaturated, contrasted, moved, resized and cut out."""
    n = len(images)
    half = (torch.rand(n) < 0.4).float()

    def ratio(low: float, high: float, neutral: float) -> Tensor:
        drawn = low + (high - low) * torch.rand(n)
        return torch.where(half > 0, drawn, torch.full((n,), neutral))[:, None, None, None]

    images = images + ratio(-0.5, 0.5, 0.0)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * ratio(0.0, 2.0, 1.0)
    level = images.mean((1, 2, 3), keepdim=True)
    images = level + (images - level) * ratio(0.5, 1.5, 1.0)
    scale, zero = ratio(0.8, 1.2, 1.0).flatten(), torch.zeros(n)
    x, y = ratio(-0.25, 0.25, 0.0).flatten(), ratio(-0.25, 0.25, 0.0).flatten()
    theta = torch.stack((scale, zero, x, zero, scale, y), 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    line = torch.linspace(0, 1, images.shape[-1])
    cut = (half * (torch.rand(n) < 0.6).float())[:, None]
    middle = torch.rand(2, n, 1)
    rows, columns = ((line[None] - middle[i]).abs() < 0.25 * cut for i in range(2))
    hole = (rows[:, None, :, None] & columns[:, None, None, :]).to(images.dtype)
    return images * (1 - hole)


def degrade(images: Tensor) -> Tensor:
    """Return the batch with a quarter of the images blurred and a fifth noisy, as an imperfect decoder's would be."""
    n, _, size, _ = images.shape
    small = int(torch.randint(14, 44, ()))
    blurred = F.interpolate(F.interpolate(images, size=(small, small), mode="area"), size=(size, size), mode="bilinear")
    images = torch.where((torch.rand(n) < 0.25)[:, None, None, None], blurred, images)
    noisy = (torch.rand(n) < 0.2)[:, None, None, None] * torch.rand(n, 1, 1, 1) * 0.3
    return images + noisy * torch.randn_like(images)


@torch.no_grad()
def evaluate(
    network: nn.Module, captions: Captions, sprites: Sprites, mask: Tensor, limit: int = 4000
) -> dict[str, float]:
    """Return retrieval of held-out combinations among all names, and among all names times colours, as shares."""
    network.eval()
    colours = list(COLOURS)
    chosen = sprites.chosen()
    known = [sprites.names[name] for name in chosen]
    place = torch.full((len(sprites.names),), -1)
    place[chosen] = torch.arange(len(chosen))
    texts = [f"{with_article(name)} on {with_article(colour)} background" for name in known for colour in colours]
    table = torch.cat(
        [F.normalize(network.encode_text(captions(texts[i : i + 1024])), dim=-1) for i in range(0, len(texts), 1024)]
    )
    bare = F.normalize(network.encode_text(captions([with_article(name) for name in known])), dim=-1)
    figures: dict[str, float] = {"names": len(known), "captions": len(texts)}
    palette = torch.tensor(list(COLOURS.values()))
    generator = torch.Generator().manual_seed(5)
    decoded = torch.tensor([c["decoder"] for c in concepts()] + [False] * len(sprites.names))[sprites.name_of]
    for group, inside in (("decoder_concepts", decoded), ("all_names", place[sprites.name_of] >= 0)):
        rows = [
            (int(i), int(c)) for i in inside.nonzero().flatten() for c in mask[sprites.name_of[i]].nonzero().flatten()
        ]
        index, colour = torch.tensor([rows[i] for i in torch.randperm(len(rows), generator=generator)[:limit]]).T
        n = len(index)
        places = torch.zeros(n)
        factors = Factors(palette[colour], palette[colour], places.long(), places + 0.2, places, places, places + 0.8)
        seen = torch.cat(
            [
                F.normalize(
                    network.encode_image(
                        compose(
                            sprites.pictures[index[i : i + 256]],
                            Factors(*(getattr(factors, f)[i : i + 256] for f in Factors.__dataclass_fields__)),
                        )
                    ),
                    dim=-1,
                )
                for i in range(0, n, 256)
            ]
        )
        name = place[sprites.name_of[index]]
        for words, answers, texts_ in (("caption", name * len(colours) + colour, table), ("name", name, bare)):
            best = (seen @ texts_.T).topk(5, dim=1).indices
            figures[f"{group}_{words}_top1"] = round((best[:, 0] == answers).float().mean().item(), 4)
            figures[f"{group}_{words}_top5"] = round((best == answers[:, None]).any(1).float().mean().item(), 4)
        figures[f"{group}_count"] = n
    return figures


if __name__ == "__main__":
    main()
