"""A small residual network built from its widths alone, after He et al. (2016, arXiv 1512.03385)."""

__all__ = ["Block", "ResNet", "resnet"]

import copy
from collections.abc import Sequence
from typing import no_type_check

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SMALLEST_SIDE = 4


class Block(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm around which the input, or a 1 x 1 projection of it, is added."""

    def __init__(self, wide: int, inner: int, out: int, stride: int, project: bool, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, inner, 3, stride, 1, bias=False)
        self.norm1, self.act1 = nn.BatchNorm2d(inner), copy.deepcopy(activation)
        self.conv2, self.norm2 = nn.Conv2d(inner, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(wide, out, 1, stride, bias=False) if project else None
        self.shortcut_norm = nn.BatchNorm2d(out) if project else None
        self.act2 = copy.deepcopy(activation)

    @no_type_check
    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        made = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        if self.shortcut is not None and self.shortcut_norm is not None:
            return self.act2(made + self.shortcut_norm(self.shortcut(x)))
        return self.act2(made + x)


class ResNet(nn.Module):
    """A convolution, residual blocks, the mean over the picture, and one Linear layer."""

    def __init__(self, channels: int, widths: Sequence[int], outputs: int, side: int, activation: nn.Module) -> None:
        super().__init__()
        wide = widths[0]
        self.conv0 = nn.Conv2d(channels, wide, 3, padding=1, bias=False)
        self.norm0, self.act0 = nn.BatchNorm2d(wide), copy.deepcopy(activation)
        blocks = [Block(wide, widths[1], wide, 1, False, activation)]
        for inner, out in zip(widths[2::2], widths[3::2], strict=True):
            stride = 2 if side // 2 >= SMALLEST_SIDE else 1
            side = (side + 1) // stride
            blocks.append(Block(wide, inner, out, stride, True, activation))
            wide = out
        self.blocks = nn.Sequential(*blocks)
        self.mean, self.flatten, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, outputs)

    @no_type_check
    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of pictures (b, channels, height, width)."""
        return self.head(self.flatten(self.mean(self.blocks(self.act0(self.norm0(self.conv0(x)))))))


def resnet(shape: tuple[int, int, int], widths: Sequence[int], outputs: int, activation: nn.Module) -> ResNet:
    """Return an undrawn residual network whose widths stand in the order in which their layers are executed.

    They come in pairs: the first are the channels of the residual stream and those inside the first block, each further
    pair those inside a block and of the stream it leads to, by a 1 x 1 projection and with stride 2 (unless that would
    leave fewer than 4 pixels). Raises `ValueError` where a width is without its partner.
    """
    if len(widths) % 2:
        raise ValueError(f"widths of the family resnet come in pairs, got {len(widths)}: add one or leave one out")
    with torch.device("meta"):
        network = ResNet(shape[0], widths, outputs, min(shape[1:]), activation)
    network = network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.detach().zero_()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.reset_parameters()
    return network
