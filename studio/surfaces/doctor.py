"""What a report of a problem needs, and the care of pretrained weights from the terminal."""

__all__ = ["report", "weights_get", "weights_list", "weights_verify"]

import platform
import shutil
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from studio import __version__
from studio.core.devices import best_device, free_memory
from studio.desk.store import Store, home
from studio.files.weights import Found, assets_folder, card, cards, download, find, own_folder, places
from studio.problems.pairs import load_card, load_pair

PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "numpy", "scipy", "pillow", "safetensors", "gradio", "plotly", "rdkit",
    "numba", "py3Dmol", "ipywidgets", "anywidget", "trimesh", "av",
)  # fmt: skip
PARTS = ("decoder", "clip", "judge")


def report() -> str:
    """Return versions, device, memory and weights as lines of text, without names of this machine or its user."""
    device = best_device()
    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    rows = [
        ("studio", __version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((name, _version(name)) for name in PACKAGES),
        ("device", f"{device.type}{gpu}, {torch.get_num_threads()} threads, {free_memory(device) / 2**30:.1f} GB free"),
        ("runs kept", _runs()),
        ("embedded", _embedded()),
        *((item.name, "here" if isinstance(find(item), Found) else "not on this machine") for item in cards()),
    ]
    return "\n".join(f"{name:22} {value}" for name, value in rows)


def _runs() -> str:
    """Return how many runs are kept, how large they are, and how much room their disk has; or why none can be."""
    try:
        store = Store(home())
        files = [path.stat() for path in (store.folder / "runs").iterdir()]
        # A picture of a film may be a link to the newest snapshot: each file counts once.
        size = sum({stat.st_ino: stat.st_size for stat in files}.values())
        free = shutil.disk_usage(store.folder).free
        return f"{len(store.rows()):,} in {size / 2**20:,.0f} MB; {free / 2**30:.1f} GB free there"
    except (ValueError, OSError) as error:
        return f"cannot be kept: {type(error).__name__}"


def weights_list() -> int:
    """Print every set of weights: what it is, whether it is here, its licence and where it is looked for."""
    print(f"embedded\n  small BigGAN, CLIP and judge that ship with the studio\n  {_embedded()}")
    for item in cards():
        found = find(item)
        state = f"here: {_short(found.paths[0].parent)}" if isinstance(found, Found) else "not on this machine"
        looked = ", ".join(dict.fromkeys(_short(place) for place in places(item)))
        print(f"{item.name}\n  {item.what}\n  {state}\n  licence: {item.licence}\n  looked for in: {looked}")
    return 0


def weights_get(name: str) -> int:
    """Download a set of weights with a progress bar; what has arrived is kept when the line breaks."""
    from tqdm import tqdm

    chosen = card(name)
    with closing(download(chosen)) as steps, tqdm(unit="B", unit_scale=True, leave=False) as bar:
        for step in steps:
            if bar.desc != f"{step.name}: ":
                bar.reset(step.total or None)
                bar.set_description(step.name, refresh=False)
            bar.update(step.done - bar.n)
    print(f"{name} is in {_short(own_folder(chosen))}")
    return 0


def weights_verify(name: str) -> int:
    """Check that a set of weights is whole, has its published checksum and fits its architecture."""
    if name == "embedded":
        load_pair("embedded", "cpu")
        print("embedded: whole, and it loads")
        return 0
    chosen = card(name)
    load_card(name)
    checked = "with the published checksum" if any(file.sha256 for file in chosen.files) else "no checksum is published"
    print(f"{name}: whole, {checked}, and every entry fits the architecture")
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _embedded() -> str:
    folders = [assets_folder() / "embedded" / part for part in PARTS]
    missing = [folder.name for folder in folders if not any(folder.glob("*.safetensors"))]
    if missing:
        return f"incomplete: {', '.join(missing)} missing; take a complete checkout or wheel"
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    return f"complete, {size / 2**20:.1f} MB"


def _short(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except ValueError:
        return str(path)
