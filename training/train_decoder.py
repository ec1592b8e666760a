"""Train the small BigGAN decoder to draw composites from known factors; the same command goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from composites import Factors, compose, decoder_concepts, load_sprites
from PIL import Image
from torch import Tensor, nn

from studio.nets.biggan import BigGAN, BigGANConfig

__all__ = ["FACTORS", "class_pictures", "config", "factors_of", "main", "null_columns", "sheet"]

LAYERS = ((True, 16, 8), (True, 8, 4), (True, 4, 2), (True, 2, 1))
Z_DIM = 96
FACTORS = 10
SHIFT, SMALLEST, LARGEST = 0.05, 0.8, 0.96
SEED = 7


def config(classes: int, width: int) -> BigGANConfig:
    """Return the decoder's shape: four doublings to 64 x 64, no attention, the same statistics at every truncation."""
    return BigGANConfig(
        output_dim=64,
        z_dim=Z_DIM,
        class_embed_dim=Z_DIM,
        channel_width=width,
        num_classes=classes,
        layers=LAYERS,
        attention_layer_position=99,
        n_stats=2,
    )


def main() -> None:
    """Read the command line, train for the given minutes, and write checkpoints, curves and sample sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with emoji/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, the curves and the sheets")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time in all, restarts included")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--styles", nargs="+", default=["Noto"], help="Noto, EmojiTwo or both")
    parser.add_argument("--clip", type=Path, help="exported CLIP folder: adds the loss on its features (second half)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments)


def class_pictures(data: Path, styles: list[str]) -> tuple[Tensor, list[str]]:
    """Return one picture a class (c, 4, 64, 64) and the class names, such as "apple (Noto)"."""
    sprites = load_sprites(data, tiles=False)
    chosen = decoder_concepts()
    codes = [concept["codepoints"] for concept in chosen]
    rows, names = [], []
    for style in styles:
        place = {
            code: i for i, (code, s) in enumerate(zip(sprites.codepoints, sprites.styles, strict=True)) if s == style
        }
        rows += [place[code] for code in codes]
        names += [f"{concept['name']} ({style})" for concept in chosen]
    return sprites.pictures[rows], names


def principal_codes(pictures: Tensor) -> Tensor:
    """Return a code (c, Z_DIM) for each sprite: its principal components, so that like sprites start alike."""
    rgba = pictures.float() / 255
    flat = F.avg_pool2d(torch.cat((rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]), dim=1), 2).flatten(1)
    left, scale, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    codes = torch.zeros(len(pictures), Z_DIM)
    rank = min(Z_DIM, len(scale) - 1)
    codes[:, :rank] = left[:, :rank] * scale[:rank].sqrt()
    return codes / codes.std()


def factors_of(z: Tensor) -> Factors:
    """Return what the first ten coordinates of a Gaussian latent mean, through the normal distribution function Phi.

    0-2 and 3-5: two background colours, Phi(1.5 z). 6: plain below Phi = 0.6, vertical gradient below 0.8, else
    horizontal stripes. 7, 8: place across and down, within 5 % of the width. 9: size, 80 % to 96 % of the width.
    """
    colours = torch.special.ndtr(1.5 * z[:, :6])
    unit = torch.special.ndtr(z[:, 6:FACTORS])
    pattern = torch.where(unit[:, 0] < 0.6, 0, torch.where(unit[:, 0] < 0.8, 6, 1))
    return Factors(
        colours[:, :3],
        colours[:, 3:6],
        pattern,
        torch.full_like(unit[:, 0], 0.25),
        (unit[:, 1] * 2 - 1) * SHIFT,
        (unit[:, 2] * 2 - 1) * SHIFT,
        SMALLEST + (LARGEST - SMALLEST) * unit[:, 3],
    )


def train(arguments: argparse.Namespace) -> None:
    """Run until the minutes are used up, saving every two minutes."""
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    pictures, names = class_pictures(arguments.data, arguments.styles)
    torch.manual_seed(SEED)
    network = BigGAN(config(len(names), arguments.width)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        network.embeddings.weight.copy_(principal_codes(pictures).T)
    live_statistics(network)
    heads = Heads(network)
    table = network.embeddings.weight
    rest = [p for p in network.parameters() if p is not table]
    optimiser = torch.optim.Adam(
        [{"params": [table], "scale": 3.0}, {"params": [*rest, *heads.parameters()], "scale": 1.0}], betas=(0.9, 0.98)
    )
    average = {name: value.clone() for name, value in network.state_dict().items()}
    state = {"step": 0, "seconds": 0.0, "curve": []}
    checkpoint = out / "checkpoint.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        average, state = saved["average"], saved["state"]
        torch.manual_seed(SEED + state["step"])
    features = Features(arguments.clip) if arguments.clip else None
    order = torch.empty(0, dtype=torch.long)
    last = saved_at = time.time()
    while (progress := state["seconds"] / (60 * arguments.minutes)) < 1:
        step = state["step"]
        pace = min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = arguments.rate * group["scale"] * pace
        if len(order) < arguments.batch:
            order = torch.cat((order, torch.randperm(len(names))))
        index, order = order[: arguments.batch], order[arguments.batch :]
        z = latents(len(index), min(1.0, 0.2 + 2 * progress))
        target = compose(pictures[index], factors_of(z)).to(memory_format=torch.channels_last)
        weight = 1 + 1.5 * coverage(pictures[index], z)
        with torch.autocast("cpu", torch.bfloat16):
            images = network(z, table.T[index], 1.0)
        images = images.float()
        loss = pixel_loss(images, target, weight) + 0.3 * (1 - progress) * heads.loss(target)
        if features is not None and progress > 0.5:
            loss = loss + 0.15 * features(images[::2], target[::2])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(rest, 1.0)
        optimiser.step()
        keep = min(0.998, step / (step + 20))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        now = time.time()
        state["seconds"] += now - last
        last = now
        state["step"] = step + 1
        if step % 25 == 0:
            error = (images.detach() - target).abs().mean().item()
            state["curve"].append([step, round(loss.item(), 4), round(error, 4), round(state["seconds"])])
            print(f"{step:6d} loss {loss.item():.4f} L1 {error:.4f} {state['seconds']:.0f} s", flush=True)
        if now - saved_at > 120:
            saved_at = now
            write(out, network, optimiser, average, state, pictures)
    write(out, network, optimiser, average, state, pictures)


def write(
    out: Path,
    network: BigGAN,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    state: dict,
    pictures: Tensor,
) -> None:
    """Write the checkpoint whole, the curve, and a sheet of samples beside their targets."""
    record = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average,
        "state": state,
        "width": network.config.channel_width,
        "classes": network.config.num_classes,
    }
    torch.save(record, out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")
    (out / "curve.json").write_text(json.dumps(state), encoding="utf-8")
    smooth = BigGAN(network.config).eval()
    smooth.load_state_dict(average)
    sheet(smooth, pictures).save(out / f"sheet_{int(state['seconds'] // 60):03d}.png")


@torch.no_grad()
def sheet(network: BigGAN, pictures: Tensor, seed: int = 1) -> Image.Image:
    """Return targets (upper line) and what the decoder makes of the same latents (lower line), for 64 classes."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(pictures), generator=generator)[:64]
    z = torch.zeros(len(index), Z_DIM)
    z[:, :FACTORS] = torch.randn(len(index), FACTORS, generator=generator)
    made = network(z, network.embeddings.weight.T[index], 1.0)
    rows = torch.stack((compose(pictures[index], factors_of(z)).view(4, 16, 3, 64, 64), made.view(4, 16, 3, 64, 64)), 1)
    pixels = rows.permute(0, 1, 4, 2, 5, 3).reshape(8 * 64, 16 * 64, 3)
    return Image.fromarray(((pixels + 1) * 127.5).round().byte().numpy())


def latents(n: int, spread: float) -> Tensor:
    """Return Gaussian latents with the unused coordinates at zero; place and size start narrow and widen to 1."""
    z = torch.zeros(n, Z_DIM)
    z[:, :FACTORS] = torch.randn(n, FACTORS)
    z[:, 7:FACTORS] *= spread
    return z


def coverage(pictures: Tensor, z: Tensor) -> Tensor:
    """Return where the sprite stands in each composite, (n, 1, 64, 64)."""
    black = factors_of(z)
    zero = torch.zeros_like(black.first)
    alone = Factors(zero, zero, black.pattern * 0, black.period, black.x, black.y, black.size)
    white = pictures.clone()
    white[:, :3] = 255
    return (compose(white, alone)[:, :1] + 1) / 2


def pixel_loss(images: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted absolute error at three scales plus that of neighbouring differences."""
    error = images - target
    loss = (error.abs() * weight).mean()
    for scale in (2, 4):
        loss = loss + 0.5 * F.avg_pool2d(error, scale).abs().mean()
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return loss + 0.5 * (across.abs().mean() + down.abs().mean())


class Features(nn.Module):
    """The distance between two batches in the layers of a frozen image tower."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from studio.nets.torchvision_compat import import_open_clip

        network = import_open_clip().create_model(f"local-dir:{folder}")
        self.tower = network.visual.requires_grad_(False).eval()
        self.seen: list[Tensor] = []
        for block in self.tower.transformer.resblocks:
            block.register_forward_hook(lambda _module, _inputs, output: self.seen.append(output))

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        self.seen.clear()
        with torch.no_grad():
            self.tower(target)
        wanted = list(self.seen)
        self.seen.clear()
        final = self.tower(images)
        assert final is not None
        return sum(
            (F.smooth_l1_loss(a, b) / b.var() for a, b in zip(self.seen, wanted, strict=True)), torch.zeros(())
        ) / len(wanted)


class Heads(nn.Module):
    """Small pictures read off the earlier blocks while training, so that these learn without waiting for the last."""

    def __init__(self, network: BigGAN) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        blocks = list(network.generator.layers)[:-1]
        width = network.config.channel_width
        self.heads = nn.ModuleList(nn.Conv2d(width * high, 3, 1) for _, _, high in network.config.layers[:-1])
        for block in blocks:
            block.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        if module.training:
            self.seen.append(output)

    def loss(self, target: Tensor) -> Tensor:
        """Return the summed absolute errors of the small pictures, and forget them."""
        total = torch.zeros(())
        for head, hidden in zip(self.heads, self.seen, strict=True):
            small = F.adaptive_avg_pool2d(target, hidden.shape[-1])
            total = total + (torch.tanh(head(hidden.float())) - small).abs().mean()
        self.seen.clear()
        return total


def live_statistics(network: BigGAN, momentum: float = 0.05) -> None:
    """Make every norm use the statistics of its batch while training, and keep running ones for afterwards."""

    def watch(module: nn.Module, inputs: tuple) -> None:
        if not module.training:
            module.__dict__.pop("statistics", None)
            return
        hidden = inputs[0].float()
        mean, variance = hidden.mean((0, 2, 3)), hidden.var((0, 2, 3), correction=0)
        with torch.no_grad():
            module.running_means.lerp_(mean.expand_as(module.running_means), momentum)
            module.running_vars.lerp_(variance.expand_as(module.running_vars), momentum)
        module.__dict__["statistics"] = lambda _truncation: (mean, variance)

    for module in network.modules():
        if hasattr(module, "running_means"):
            module.register_forward_pre_hook(watch)


def null_columns(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with every weight on an unused coordinate of z exactly zero."""
    cleared = dict(state)
    for name, value in state.items():
        if name.endswith(("scale.weight", "offset.weight", "gen_z.weight")):
            cleared[name] = value.clone()
            cleared[name][:, FACTORS:Z_DIM] = 0
    return cleared


if __name__ == "__main__":
    main()
