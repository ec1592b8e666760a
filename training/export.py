"""Write the trained networks into assets/embedded in the formats of open_clip and pytorch-pretrained-biggan."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from composites import COLOURS, decoder_concepts, load_sprites
from safetensors.torch import save_file
from train_clip import MODELS, VOCABULARY
from train_decoder import FACTORS, class_pictures, config, null_columns

from studio.nets.biggan import BigGAN, save_biggan

__all__ = ["export_clip", "export_decoder", "main"]

HALF_RANGE = [0.5, 0.5, 0.5]


def main() -> None:
    """Read the command line and export what it names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with emoji/ and pixel_tiles/")
    parser.add_argument("--assets", type=Path, default=Path("assets/embedded"))
    parser.add_argument("--clip", type=Path, help="run folder of the CLIP")
    parser.add_argument("--judge", type=Path, help="run folder of the judge")
    parser.add_argument("--decoder", type=Path, help="run folder of the decoder")
    parser.add_argument("--styles", nargs="+", default=["Noto"])
    arguments = parser.parse_args()
    for name, run in (("clip", arguments.clip), ("judge", arguments.judge)):
        if run:
            export_clip(name, run, arguments.assets / name)
    if arguments.decoder:
        export_decoder(
            arguments.decoder, arguments.assets / "decoder", class_pictures(arguments.data, arguments.styles)[1]
        )
    for file in arguments.assets.rglob("*.safetensors"):
        file.chmod(0o644)
    sprites = load_sprites(arguments.data)
    vocabulary = {
        "names": [sprites.names[i] for i in sprites.chosen()],
        "colours": list(COLOURS),
        "decoder": [concept["name"] for concept in decoder_concepts()],
    }
    (arguments.assets / "vocabulary.json").write_text(json.dumps(vocabulary, indent=1) + "\n", encoding="utf-8")


def export_clip(model: str, run: Path, folder: Path) -> None:
    """Write one CLIP as open_clip's local folder, 16 bits; words it never saw get a zero embedding."""
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    state = {name: value.float() for name, value in saved["network"].items() if value.is_floating_point()}
    rows = state["token_embedding.weight"]
    whole = torch.zeros(VOCABULARY, rows.shape[1])
    whole[saved["used"]] = rows
    state["token_embedding.weight"] = whole
    half = {name: value.half().contiguous() for name, value in state.items()}
    half |= {name: value for name, value in saved["network"].items() if not value.is_floating_point()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(half, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    record = {
        "model_cfg": MODELS[model],
        "preprocess_cfg": {
            "mean": HALF_RANGE,
            "std": HALF_RANGE,
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def export_decoder(run: Path, folder: Path, names: list[str]) -> None:
    """Write the decoder's averaged weights, its class names and the meaning of its latents."""
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    network = BigGAN(config(saved["classes"], saved["width"]))
    network.load_state_dict(null_columns(saved["average"]))
    save_biggan(network, folder)
    record = {
        "classes": names,
        "used_coordinates": FACTORS,
        "coordinates": {
            "0-2": "first background colour, Phi(1.5 z)",
            "3-5": "second background colour, Phi(1.5 z)",
            "6": "Phi(z) < 0.6 plain, < 0.8 vertical gradient, else horizontal stripes",
            "7": "place across",
            "8": "place down",
            "9": "size",
            "10-95": "no influence",
        },
    }
    (folder / "classes.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
