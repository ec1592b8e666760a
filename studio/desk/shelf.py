"""The files of runs: the newest snapshot of each, the pictures of its film, and a thumbnail.

Every file is written whole or not at all, under a name made from the run's id alone.
"""

__all__ = ["Shelf", "StoreError"]

import os
import time
from contextlib import suppress
from pathlib import Path

from studio.files.archive import write_whole


class StoreError(ValueError):
    """The store cannot be read or written, or refuses; the message is one sentence with the remedy."""


class Shelf:
    """The files of the runs of a folder; a strange id is a `KeyError`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self, run_id: str) -> list[Path]:
        """Return the files of a run that are there."""
        return sorted((self.folder / "runs").glob(f"{_id(run_id)}.*"))

    def keep(self, run_id: str, data: bytes, durable: bool = True) -> None:
        """Write a run's newest snapshot whole or not at all; `durable` also waits for the disk.

        Raises `StoreError` where the disk refuses.
        """
        try:
            write_whole(self._path(run_id), data, durable)
        except ValueError as error:
            raise StoreError(f"the picture could not be kept in {self.folder}: free some space there") from error

    def film(self, run_id: str, step: int, data: bytes | None = None) -> None:
        """Keep a snapshot in the run's film: the newest one, as a link where the disk has links, or `data`.

        On a disk that refuses it is left out.
        """
        path = self._path(run_id)
        target = path.with_name(f"{run_id}.{step:09d}.safetensors")
        with suppress(OSError, ValueError):
            if data is None:
                try:
                    os.link(path, target)
                    return
                except FileExistsError:
                    return
                except OSError:
                    data = path.read_bytes()
            write_whole(target, data, durable=False)

    def frame(self, run_id: str) -> bytes:
        """Return the bytes of a run's newest snapshot; a `StoreError` where there is none."""
        try:
            return self._path(run_id).read_bytes()
        except OSError as error:
            raise StoreError("nothing was kept of this run: run it again") from error

    def frames(self, run_id: str) -> list[Path]:
        """Return the files of a run's film in the order of its steps."""
        return sorted((self.folder / "runs").glob(f"{_id(run_id)}.?????????.safetensors"))

    def thumbnail(self, run_id: str) -> bytes | None:
        """Return the small picture of a run that was kept, None where there is none yet."""
        try:
            return self._path(run_id).with_suffix(".png").read_bytes()
        except OSError:
            return None

    def keep_thumbnail(self, run_id: str, data: bytes) -> None:
        """Keep a small picture of a run that has ended; on a disk that refuses it is made anew each time."""
        with suppress(ValueError):
            write_whole(self._path(run_id).with_suffix(".png"), data, durable=False)

    def sweep(self, older: float = 60.0) -> None:
        """Remove what writers that were killed left half-written."""
        for path in (self.folder / "runs").glob(".*.part"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > older:
                    path.unlink()

    def _path(self, run_id: str) -> Path:
        return self.folder / "runs" / f"{_id(run_id)}.safetensors"


def _id(run_id: str) -> str:
    """Return an id that can be part of a path; anything but 32 hexadecimal digits is a `KeyError`."""
    if len(run_id) != 32 or not all(letter in "0123456789abcdef" for letter in run_id):
        raise KeyError(run_id)
    return run_id
