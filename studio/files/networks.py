"""Networks that a user brought, kept by what is in them: a file's name is its checksum, whoever chose another."""

__all__ = ["NAME", "kept_network", "keep_network"]

import hashlib
import re
from pathlib import Path

from studio.files.archive import write_whole
from studio.files.weights import user_cache

NAME = re.compile(r"[0-9a-f]{64}")
MOST = 32  # files kept; the ones not used for longest go first


def keep_network(data: bytes) -> str:
    """Write the bytes of a network file, already found to be one, into the user's cache and return their checksum.

    Raises `ValueError` with the remedy where it cannot be written.
    """
    name, folder = hashlib.sha256(data).hexdigest(), user_cache() / "networks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"networks cannot be kept in {folder}: see whether the disk is full or read-only") from error
    write_whole(folder / f"{name}.safetensors", data)
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    for path in files[:-MOST]:
        path.unlink(missing_ok=True)
    return name


def kept_network(name: str) -> Path:
    """Return the path of a network kept under a checksum.

    Raises `ValueError` where the name is no checksum or the file is not there: it is of this machine alone.
    """
    path = user_cache() / "networks" / f"{name}.safetensors"
    if not NAME.fullmatch(name) or not path.is_file():
        raise ValueError("network 'file' needs a file: open a network saved as safetensors on this page first")
    path.touch()
    return path
