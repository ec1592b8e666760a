"""Point clouds to classify: everyday shapes as points of their surfaces, from a folder of one's own."""

__all__ = ["POINTS", "PointClouds", "point_clouds"]

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from studio.core.seeds import generator_from
from studio.files.datasets import data_file, read_arrays

FILE = "pointclouds/objects_pc1024.npz"
STORED = 1024
POINTS = 256
MOST_CLASSES = 256
REACH = 1.01


@dataclass(frozen=True, eq=False)
class PointClouds:
    """Shapes as unordered points in the unit ball (y is up), each with its class, in two parts."""

    points: Float[Tensor, "m 3 n"]
    labels: Int[Tensor, " m"]
    test_points: Float[Tensor, "t 3 n"]
    test_labels: Int[Tensor, " t"]
    classes: tuple[str, ...]


@lru_cache(maxsize=1)
def point_clouds() -> PointClouds:
    """Return 256 of every shape's 1,024 points, read from the folder that STUDIO_DATA names.

    The shapes are CC0 models (Quaternius, KayKit, Kenney), their points drawn from the surface independently, so that
    any 256 of them are a fair draw; the training part is shuffled once for all. Raises `ValueError`, one sentence with
    the remedy, where the file is missing or damaged.
    """
    path = data_file(FILE, "point-clouds")
    found = read_arrays(path, {"points": "float16", "labels": "uint8", "classes": "str", "split": "str"})
    classes = _classes(found["classes"], path)
    labels = _labels(found["labels"], len(classes), path)
    clouds = _clouds(found["points"], len(labels), path)
    train, test = _split(found["split"], len(labels), path)
    train = train[torch.randperm(len(train), generator=generator_from(0, "point-clouds"))]
    return PointClouds(clouds[train], labels[train], clouds[test], labels[test], classes)


def _clouds(points: np.ndarray, count: int, path: Path) -> Float32[Tensor, "m 3 n"]:
    if points.shape != (count, STORED, 3):
        raise ValueError(
            f"{path.name} must hold {STORED:,} points a label, got the shape {points.shape}: fetch it again"
        )
    chosen = points[:, :POINTS].astype(np.float32)
    if not (np.abs(chosen) <= REACH).all():
        raise ValueError(f"{path.name} has points that are not finite or leave the unit ball: fetch it again")
    return torch.from_numpy(chosen).transpose(1, 2).contiguous()


def _labels(labels: UInt8[np.ndarray, "..."], classes: int, path: Path) -> Int[Tensor, " m"]:
    if labels.ndim != 1 or not len(labels) or (labels >= classes).any():
        raise ValueError(f"{path.name} must have labels from 0 to {classes - 1} in one row: fetch it again")
    return torch.from_numpy(labels.astype(np.int64))


def _classes(names: np.ndarray, path: Path) -> tuple[str, ...]:
    if names.ndim != 1 or not 2 <= len(names) <= MOST_CLASSES:
        raise ValueError(
            f"{path.name} must name 2 to {MOST_CLASSES} classes, got the shape {names.shape}: fetch it again"
        )
    classes = tuple(names.tolist())
    if not all(name and name.isprintable() for name in classes) or len(set(classes)) < len(classes):
        raise ValueError(f"{path.name} must give every class a name of its own that can be read: fetch it again")
    return classes


def _split(split: np.ndarray, count: int, path: Path) -> tuple[Int[Tensor, " m"], Int[Tensor, " t"]]:
    """Return the rows of the training and of the test part."""
    if split.shape != (count,) or not np.isin(split, ("train", "test")).all():
        raise ValueError(f"{path.name} must have a split that says train or test for every shape: fetch it again")
    train, test = (torch.from_numpy(np.flatnonzero(split == part)) for part in ("train", "test"))
    if not len(train) or not len(test):
        raise ValueError(f"{path.name} must have shapes to train and shapes to test on: fetch it again")
    return train, test
