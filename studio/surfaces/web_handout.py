"""Files that a page hands out: written into a folder of this process, copied by the server, gone after a while."""

__all__ = ["handout"]

import shutil
import tempfile
import threading
import time
import uuid
from functools import lru_cache
from pathlib import Path

KEPT = 600.0
_sweeping = threading.Lock()


def handout(name: str, data: bytes) -> Path:
    """Return the path of a new file with this name and content; what was handed out ten minutes ago is removed."""
    root = Path(_root().name)
    with _sweeping:
        for folder in root.iterdir():
            if time.time() - folder.stat().st_mtime > KEPT:
                shutil.rmtree(folder, ignore_errors=True)
    path = root / uuid.uuid4().hex / name
    path.parent.mkdir()
    path.write_bytes(data)
    return path


@lru_cache(maxsize=1)
def _root() -> tempfile.TemporaryDirectory:
    """Return the folder, which goes with the process."""
    return tempfile.TemporaryDirectory(prefix="studio-handout-", ignore_cleanup_errors=True)
