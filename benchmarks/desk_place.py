"""A folder of their own for the desk's trials: whatever process they start there is ended with it, also on failure."""

__all__ = ["Server", "end_all", "kill", "place", "processes", "server", "start_server", "until", "worker_pid"]

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MOST = 60
VARIABLES = ("STUDIO_HOME", "TMPDIR", "OMP_NUM_THREADS", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE")


@contextmanager
def place(name: str = "studio bench") -> Generator[Path, None, None]:
    """Give a new folder as STUDIO_HOME; at the end every process that belongs to it is killed and it is deleted.

    Should more than a few dozen processes belong to it at any time, all are killed at once and the trial fails.
    """
    top = Path(tempfile.mkdtemp(prefix=f"{name} "))
    folder, spare = top / "home", top / "tmp"
    folder.mkdir()
    spare.mkdir()
    before = {key: os.environ.get(key) for key in VARIABLES}
    values = (str(folder), str(spare), "1", "False", "1")
    os.environ.update(zip(VARIABLES, values, strict=True))
    over, wild = threading.Event(), []
    guard = threading.Thread(target=_guard, args=(top, over, wild), daemon=True)
    guard.start()
    try:
        yield folder
    finally:
        over.set()
        guard.join()
        for key, value in before.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})
        end_all(top)
        shutil.rmtree(top, ignore_errors=True)
    if wild:
        raise RuntimeError(f"{wild[0]} processes ran in {top}: something starts workers without end")


def processes(folder: Path) -> list[int]:
    """Return the processes, other than this one, that name a folder in their command or as their STUDIO_HOME."""
    found, own = [], (os.getpid(), os.getppid())
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in own:
            with suppress(OSError):
                words = Path(f"/proc/{entry}/cmdline").read_bytes() + b"\0"
                if words != b"\0" and str(folder).encode() in words + Path(f"/proc/{entry}/environ").read_bytes():
                    found.append(int(entry))
    return found


def end_all(folder: Path) -> None:
    """Kill every process that belongs to a folder, until none is left."""
    for _ in range(50):
        found = processes(folder)
        if not found:
            return
        for pid in found:
            kill(pid)
        time.sleep(0.1)


def kill(pid: int) -> None:
    """Kill a process at once, as a power cut would."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def worker_pid(folder: Path) -> int | None:
    """Return the process id of the worker of a folder, None where there is none."""
    for pid in processes(folder):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"studio.desk.worker" in words and str(folder).encode() in words:
                return pid
    return None


def until(ready: Callable[[], Any], seconds: float = 120.0, nap: float = 0.02) -> Any:
    """Wait for a true answer and return it; a `RuntimeError` where it does not come."""
    end = time.monotonic() + seconds
    while not (answer := ready()):
        if time.monotonic() > end:
            raise RuntimeError(f"waited {seconds:g} s for {getattr(ready, '__qualname__', ready)} in vain")
        time.sleep(nap)
    return answer


@dataclass(frozen=True)
class Server:
    """A page being served by a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def post(self, name: str, *values: object, session: str = "", wait: float = 60.0) -> tuple[Any, float]:
        """Call a named endpoint as a program does; return its answer, or the error's sentence, and the seconds."""
        body = json.dumps({"data": values, "session_hash": session or uuid.uuid4().hex}).encode()
        call = urllib.request.Request(
            f"{self.address}gradio_api/run/{name}", body, {"content-type": "application/json"}
        )
        began = time.monotonic()
        try:
            with urllib.request.urlopen(call, timeout=wait) as answer:
                found = json.load(answer)["data"][0]
        except urllib.error.HTTPError as error:
            found = ValueError(json.loads(error.read() or b"{}").get("error") or f"status {error.code}")
        return found, time.monotonic() - began


@contextmanager
def server(*options: str) -> Generator[Server, None, None]:
    """Serve the page of the walk (or of the studio's studies) on the folder that STUDIO_HOME names, and end it."""
    made = start_server(*options)
    try:
        yield made
    finally:
        kill(made.process.pid)
        made.process.wait()


def start_server(*options: str) -> Server:
    """Start a server and wait until it says its address."""
    command = [sys.executable, "-m", "benchmarks.desk_server", os.environ["STUDIO_HOME"], *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("The studio is open at "):
            address = line.split()[5].rstrip("/") + "/"
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return Server(process, address)
    raise RuntimeError(f"the server ended with status {process.wait()} before it served a page")


def _guard(top: Path, over: threading.Event, wild: list[int]) -> None:
    while not over.wait(1.0):
        many = len(processes(top))
        if many > MOST:
            wild.append(many)
            end_all(top)
