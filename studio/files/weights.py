"""Pretrained weights: a card says what a set of files is; here it becomes local paths or one clear sentence."""

__all__ = [
    "Card", "CardFile", "Found", "Missing", "Progress", "assets_folder", "card", "cards", "checkpoint", "digest_of",
    "download", "embedded", "find", "load_tensors", "places", "user_cache", "verify",
]  # fmt: skip

import contextlib
import hashlib
import os
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from pathlib import Path

import torch
from platformdirs import user_cache_dir, user_data_dir
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

APP = "optimisation-studio"
BLOCK = 2**20
TIMEOUT = 20.0
TENSOR_LIMIT = 2 * 2**30
FETCHABLE = ("https://", "http://127.0.0.1:")


@dataclass(frozen=True)
class CardFile:
    """One file: its name in a folder, where it comes from, its checksum ("" where none was published) and size cap."""

    name: str
    url: str
    sha256: str
    limit: int


@dataclass(frozen=True)
class Card:
    """A set of pretrained weights; `hub` and `cache` name its folder in the Hugging Face and ~/.cache caches."""

    name: str
    what: str
    source: str
    licence: str
    files: tuple[CardFile, ...]
    hub: str = ""
    cache: str = ""


@dataclass(frozen=True)
class Found:
    """The files of a card on this machine, in the card's order; those with a published checksum are verified."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Missing:
    """Why a card's files cannot be used, as one sentence with the remedy."""

    sentence: str


@dataclass(frozen=True)
class Progress:
    """A download under way: bytes of this file so far, and all of them where the server said (else 0)."""

    name: str
    done: int
    total: int


@cache
def cards() -> tuple[Card, ...]:
    """Return every card of cards.toml."""
    record = tomllib.loads(resources("studio.files").joinpath("cards.toml").read_text(encoding="utf-8"))
    return tuple(Card(**{**c, "files": tuple(CardFile(**f) for f in c["files"])}) for c in record["cards"])


def card(name: str) -> Card:
    """Return the card of that name; a `ValueError` lists the names there are."""
    found = next((c for c in cards() if c.name == name), None)
    if found is None:
        raise ValueError(f"weights must be one of {', '.join(c.name for c in cards())}, got {name!r}")
    return found


def find(card: Card, folder: str | Path = "") -> Found | Missing:
    """Return the verified files of a card, looked for in `folder`, the user's folders and the usual caches.

    Nothing is fetched. A file larger than its cap or with another checksum is refused, not opened.
    """
    looked = places(card, folder)
    faults: list[str] = []
    for place in looked:
        paths = [_located(place, file) for file in card.files]
        if all(paths):
            fault = verify(card, [path for path in paths if path])
            if not fault:
                return Found(tuple(path for path in paths if path))
            faults.append(fault)
    if faults:
        return Missing(f"{card.name} was found but not used: {faults[0]}; meanwhile weights 'embedded' run")
    names = " and ".join(file.name for file in card.files)
    home = own_folder(card)
    return Missing(
        f"{card.name} is not on this machine: put {names} into {home} (or run 'studio weights get {card.name}'); "
        "meanwhile weights 'embedded' run"
    )


def places(card: Card, folder: str | Path = "") -> tuple[Path, ...]:
    """Return the folders searched for a card, in order; STUDIO_WEIGHTS may name one of the user's."""
    home, chosen = Path.home(), [Path(f) for f in (folder, os.environ.get("STUDIO_WEIGHTS", "")) if str(f)]
    found = [place for c in chosen for place in (c / card.name, c)]
    found.append(own_folder(card))
    if card.name.startswith("biggan"):
        found.append(Path(os.environ.get("PYTORCH_PRETRAINED_BIGGAN_CACHE", home / ".pytorch_pretrained_biggan")))
    if card.hub:
        hub = Path(os.environ.get("HF_HUB_CACHE", _hf_home(home) / "hub"))
        found += sorted((hub / card.hub / "snapshots").glob("*"))
    if card.cache:
        found.append(Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")) / card.cache)
    return tuple(found)


def own_folder(card: Card) -> Path:
    """Return the studio's own folder for a card, where downloads go."""
    return Path(user_data_dir(APP)) / "weights" / card.name


def user_cache() -> Path:
    """Return the folder for what can be made again."""
    return Path(user_cache_dir(APP))


def assets_folder() -> Path:
    """Return the folder of what ships: inside the installed package, or beside it in a checkout."""
    package = Path(str(resources("studio")))
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent / "assets"


def embedded(part: str) -> Path:
    """Return the folder of an embedded network: decoder, clip or judge; a `ValueError` where it did not ship."""
    folder = assets_folder() / "embedded" / part
    if not folder.is_dir():
        raise ValueError(f"the embedded {part} is not in {folder}: take a complete checkout or wheel of the studio")
    return folder


def verify(card: Card, paths: Sequence[Path]) -> str:
    """Return an empty text where all files of a card are as they should be, else what is wrong."""
    for file, path in zip(card.files, paths, strict=True):
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size > file.limit:
            return f"{path} is larger than {file.limit:,} bytes, so it is not {file.name}"
        if file.sha256 and _sha256(path, _stamp(path)) != file.sha256:
            return f"{path} has another SHA-256 than published, so delete it and fetch it again"
    return ""


def download(card: Card, folder: str | Path = "") -> Generator[Progress, None, None]:
    """Fetch a card's files into a folder, yielding progress; a cut download goes on where it stopped.

    A file appears under its name only when it is whole and, where a checksum is published, verified.
    Raises `ValueError`, in one sentence, when there is no connection, too many bytes or a wrong checksum.
    """
    home = Path(folder) if str(folder) else own_folder(card)
    home.mkdir(parents=True, exist_ok=True)
    for file in card.files:
        target = home / file.name
        if target.is_file() and not (file.sha256 and _sha256(target, _stamp(target)) != file.sha256):
            yield Progress(file.name, target.stat().st_size, target.stat().st_size)
            continue
        part = home / f"{file.name}.part"
        try:
            yield from _fetched(file, part)
        except (urllib.error.URLError, TimeoutError, ConnectionError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ValueError(
                f"{file.name} could not be fetched from {file.url} ({reason}): put it into {home} yourself or "
                "try again, what has arrived is kept; meanwhile weights 'embedded' run"
            ) from None
        if file.sha256 and _sha256(part, _stamp(part)) != file.sha256:
            part.unlink()
            raise ValueError(f"{file.name} from {file.url} has a wrong SHA-256 and was thrown away: try again")
        os.replace(part, target)


def checkpoint(name: str) -> Path:
    """Return the file of that name in the folder STUDIO_WEIGHTS names, or where torch.hub keeps its own.

    By torch.hub's convention the name ends with the first digits of the SHA-256, "resnet18-f37072fd.pth". Raises
    `ValueError`, in one sentence, where there is no such file or it has another checksum; nothing is fetched.
    """
    chosen, cached = os.environ.get("STUDIO_WEIGHTS", ""), Path(torch.hub.get_dir()) / "checkpoints"
    folders = [*([Path(chosen)] if chosen else []), cached]
    found = [folder / name for folder in folders if (folder / name).is_file()]
    start = Path(name).stem.rpartition("-")[2]
    for path in found:
        if path.stat().st_size <= TENSOR_LIMIT and _sha256(path, _stamp(path)).startswith(start):
            return path
    if found:
        raise ValueError(f"{found[0]} has a SHA-256 that does not begin with {start}: delete it and fetch it again")
    home = chosen or "the folder that STUDIO_WEIGHTS names"
    raise ValueError(f"{name} is not on this machine: put it into {home} or into {cached}")


def load_tensors(path: Path, limit: int = TENSOR_LIMIT) -> dict[str, Tensor]:
    """Return the table of tensors in a .safetensors or PyTorch file; no code in the file is run.

    Raises `ValueError`, in one sentence, where the file is absent, too large or damaged.
    """
    if not path.is_file():
        raise ValueError(f"the weights are missing: looked for {path}")
    if path.stat().st_size > limit:
        raise ValueError(f"{path} is larger than {limit:,} bytes, so it is not opened")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
            return dict(state)
        raise ValueError("it holds no table of tensors")
    except (SafetensorError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the weights in {path} are not readable ({reason}): fetch the file again") from None
    except Exception as error:  # pickle's own errors share no base class
        kind = type(error).__name__
        raise ValueError(f"the weights in {path} are not readable ({kind}): fetch the file again") from None


def digest_of(paths: Sequence[Path]) -> str:
    """Return one SHA-256 for the contents of several files, in order."""
    return hashlib.sha256("".join(_sha256(path, _stamp(path)) for path in paths).encode()).hexdigest()


def _located(place: Path, file: CardFile) -> Path | None:
    """Return a card's file in a folder: by its name, or as pytorch-pretrained-biggan caches it, by its address."""
    if (place / file.name).is_file():
        return place / file.name
    stem = hashlib.sha256(file.url.encode()).hexdigest()
    cached = [path for path in place.glob(f"{stem}*") if path.suffix != ".json"] if place.is_dir() else []
    return cached[0] if cached else None


def _hf_home(home: Path) -> Path:
    return Path(os.environ.get("HF_HOME", Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")) / "huggingface"))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _sha256(path: Path, stamp: tuple[int, int]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched(file: CardFile, part: Path) -> Iterator[Progress]:
    """Append to `part` what is still to come of a file, within its cap."""
    if not file.url.startswith(FETCHABLE):
        raise ValueError(f"{file.name} may only be fetched over https, got {file.url}")
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        with contextlib.closing(error):
            complete = (error.headers.get("Content-Range") or "").endswith(f"/{have}")
        if not complete:
            part.unlink()
            yield from _fetched(file, part)
        return
    with answer:
        have = have if answer.status == 206 else 0
        expected = int(answer.headers.get("Content-Length") or 0)
        total = have + expected if expected else 0
        with open(part, "ab" if have else "wb") as out:
            while block := answer.read(BLOCK):
                have += len(block)
                if have > file.limit or total > file.limit:
                    raise ValueError(f"{file.name} at {file.url} is larger than {file.limit:,} bytes and was not kept")
                out.write(block)
                yield Progress(file.name, have, total)
        if total and have < total:
            raise ConnectionError(f"the connection closed after {have:,} of {total:,} bytes")
