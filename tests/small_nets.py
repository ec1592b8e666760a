"""Networks of the right kind and the smallest size, with random weights, for tests."""

import torch

from studio.nets.biggan import BigGAN, BigGANConfig
from studio.nets.clip import Clip
from studio.nets.torchvision_compat import import_open_clip
from studio.problems.clip_image import ClipImage
from studio.problems.prompts import parse_prompt, prompt_target

# One thread: the same bytes on every machine, and no waiting for each other where cores are shared.
torch.set_num_threads(1)
LAYERS = ((True, 16, 8), (True, 8, 4), (True, 4, 2), (False, 2, 1))
SMALL_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def small_decoder(seed: int = 0, width: int = 4) -> BigGAN:
    """Return a 32-pixel generator whose pictures differ clearly from latent to latent."""
    torch.manual_seed(seed)
    config = BigGANConfig(32, 8, 8, width, 6, LAYERS, attention_layer_position=99)
    decoder = BigGAN(config)
    with torch.no_grad():
        decoder.embeddings.weight.normal_()
        decoder.generator.conv_to_rgb.weight.mul_(4.0)
    return decoder.requires_grad_(False).eval()


def small_clip(seed: int = 1) -> Clip:
    """Return a CLIP that takes 32-pixel pictures."""
    torch.manual_seed(seed)
    return Clip(import_open_clip().CLIP(**SMALL_CLIP))


def small_problem(prompt: str = "a red apple", members: int = 1, **settings: object) -> ClipImage:
    """Return FuseDream's problem over the small networks."""
    clip = small_clip()
    target = prompt_target(clip, parse_prompt(prompt)).expand(members, -1)
    return ClipImage(small_decoder(), clip, target, **settings)  # type: ignore[arg-type]
