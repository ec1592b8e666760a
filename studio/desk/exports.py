"""A kept run as a file to take along: a picture, a film, a solid, a table, a page or a script."""

__all__ = ["FORMATS", "export", "file_name", "formats"]

import re

import numpy as np
from torch import nn

from studio.desk.desk import Desk
from studio.desk.export_page import page_html
from studio.desk.export_script import script
from studio.desk.store import Row
from studio.files.archive import Recipe, png_bytes
from studio.files.frames import snapshot_from
from studio.nets.network_files import network_bytes
from studio.nets.surgery import Edit
from studio.render.film import gif_bytes, mp4_bytes
from studio.render.molecules_text import sdf_text, xyz_text
from studio.render.raster import still
from studio.render.solids import plane_glb
from studio.render.tables import csv_text
from studio.scenes import Curves, Matrix, Members, Molecules, Network, Points, Pruning, Scene
from studio.studies.study import snapshot_type

FORMATS = ("png", "gif", "mp4", "glb", "sdf", "xyz", "csv", "safetensors", "html", "py")
LACKS = {
    "png": "draws no picture",
    "gif": "draws no picture",
    "mp4": "draws no picture",
    "glb": "draws no surface",
    "sdf": "draws no molecules",
    "xyz": "draws no molecules",
    "csv": "draws no charts",
    "safetensors": "trains no network that is kept by itself",
}
FRAMES = 48
PER_SECOND = 12
SHORTEST = 1.0


def formats(desk: Desk, row: Row) -> tuple[str, ...]:
    """Return the formats that a run can be exported in; a `ValueError` where nothing was kept of it."""
    allowed = _allowed(_scenes(desk, row), _network(desk, row) is not None)
    return tuple(kind for kind in allowed if kind != "py" or _repeatable(desk, row))


def export(desk: Desk, row: Row, kind: str) -> bytes:
    """Return a run in one of `FORMATS`.

    Raises `ValueError`, in one sentence, for an unknown format, one that the study's scenes do not allow, and a run of
    which nothing was kept.
    """
    _check(kind)
    scenes = _scenes(desk, row)
    network = _network(desk, row)
    allowed = _allowed(scenes, network is not None)
    if kind not in allowed:
        raise ValueError(f"{row.study} {LACKS[kind]}: choose {', '.join(allowed)}")
    match kind:
        case "png":
            return png_bytes(_drawn(scenes), Recipe(row.study, row.version, row.knobs))
        case "gif" | "mp4":
            frames = [frame for _, frame in _film(desk, row)]
            write = gif_bytes if kind == "gif" else mp4_bytes
            return write(frames, max(SHORTEST, len(frames) / PER_SECOND))
        case "glb":
            return plane_glb(next(scene for scene in scenes if isinstance(scene, Points)))
        case "sdf" | "xyz":
            write_text = sdf_text if kind == "sdf" else xyz_text
            return _text("".join(write_text(scene) for scene in scenes if isinstance(scene, Molecules)))
        case "csv":
            return _text(csv_text(scenes))
        case "safetensors" if network is not None:
            return network_bytes(*network)
        case "html":
            film = _film(desk, row) if "png" in allowed else []
            return _text(page_html(desk.study(row), row, desk.snapshot(row), scenes, film))
        case _:
            return _text(_script(desk, row))


def file_name(row: Row, kind: str) -> str:
    """Return a name for the exported file, of letters, digits, dots and dashes: study, seed, start of the run's id."""
    _check(kind)
    words = f"{row.study}-{row.knobs.get('seed', 'x')}-{row.id[:8]}"
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', words)[:80].lstrip('-')}.{kind}"


def _check(kind: str) -> None:
    if kind not in FORMATS:
        raise ValueError(f"{kind[:20]!r} is no format of an export: choose {', '.join(FORMATS)}")


def _scenes(desk: Desk, row: Row) -> tuple[Scene, ...]:
    """Return what the newest snapshot of a run looks like; a `ValueError` where there is none."""
    if not row.frame:
        raise ValueError("nothing was kept of this run yet: wait for its first step, or run it again")
    return desk.study(row).view(desk.snapshot(row))


def _network(desk: Desk, row: Row) -> tuple[nn.Module, tuple[Edit, ...]] | None:
    """Return the network of a run's newest snapshot, and the edits that grew or pruned it, where it has one."""
    return desk.study(row).network_of(desk.snapshot(row))


def _allowed(scenes: tuple[Scene, ...], network: bool) -> tuple[str, ...]:
    pictures = still(scenes) is not None
    surface = any(isinstance(scene, Points) for scene in scenes)
    molecules = any(isinstance(scene, Molecules) and len(scene.positions) for scene in scenes)
    charts = molecules or any(isinstance(scene, Curves | Matrix | Members | Network | Pruning) for scene in scenes)
    possible = {"png": pictures, "gif": pictures, "mp4": pictures, "glb": surface, "csv": charts}
    possible |= {"sdf": molecules, "xyz": molecules, "safetensors": network}
    return tuple(kind for kind in FORMATS if possible.get(kind, True))


def _drawn(scenes: tuple[Scene, ...]) -> np.ndarray:
    pixels = still(scenes)
    assert pixels is not None
    return pixels


def _film(desk: Desk, row: Row) -> list[tuple[int, np.ndarray]]:
    """Return the steps and pictures of a run's film, at most `FRAMES` and no picture twice in a row."""
    study, snapshots, newest = desk.study(row), desk.film(row), desk.snapshot(row)
    if not snapshots or snapshots[-1].step < newest.step:
        snapshots.append(newest)
    chosen = np.unique(np.linspace(0, len(snapshots) - 1, FRAMES).round().astype(int))
    film: list[tuple[int, np.ndarray]] = []
    for index in chosen:
        picture = _drawn(study.view(snapshots[index]))
        if film and np.array_equal(film[-1][1], picture):
            film.pop()
        film.append((snapshots[index].step, picture))
    return film


def _script(desk: Desk, row: Row) -> str:
    study, data = desk.study(row), desk.store.frame(row.id)
    return script(study, row, data, snapshot_from(data, snapshot_type(type(study))).step)


def _repeatable(desk: Desk, row: Row) -> bool:
    try:
        _script(desk, row)
    except ValueError:
        return False
    return True


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")
