"""RDKit behind a door: a child process with a clock, so that no molecule can stop or crash the studio."""

__all__ = ["COMMAND", "OPERATIONS", "Chemist", "serve"]

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from io import BufferedIOBase
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from studio.problems import chemistry
from studio.problems.chemist_frames import FrameError, frame_bytes, read_frame
from studio.problems.chemistry import Molecule
from studio.problems.mmff_terms import MMFFTerms, mmff_terms
from studio.problems.molecule_text import LONGEST_BLOCK

COMMAND = (sys.executable, "-P", "-m", "studio.problems.chemist")
MEMORY = 4 * 2**30
STARTING = 60.0
SPARE = 0.8
CLOCK = 10.0


class Chemist:
    """The functions of `chemistry`, each answered by a child process within its seconds or refused with a sentence.

    The child starts with the first call; one that hangs or crashes is replaced at the next. Calls from several threads
    wait for one another. Use it as a context manager, or call `close`.
    """

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._before = self._spent = 0.0
        self.starts = 0

    def __enter__(self) -> "Chemist":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def cpu_seconds(self) -> float:
        """Return the processor seconds of all children so far; a call that was cut off counts its whole time."""
        return self._before + self._spent

    def read(self, text: str, max_heavy: int = chemistry.MAX_HEAVY, seconds: float = CLOCK) -> Molecule:
        """Return the molecule of a SMILES, of a mol block or of the first record of an SDF."""
        return self._ask("read", (text[: 2 * LONGEST_BLOCK], max_heavy), seconds)

    def embed(
        self,
        molecule: Molecule,
        n: int,
        seed: int = 0,
        seconds: float = CLOCK,
        threads: int = 1,
        first: int = 0,
    ) -> Float64[np.ndarray, "k a 3"]:
        """Return up to n conformers in ångström; most of the seconds are for RDKit, the rest to send what it found."""
        return self._ask("embed", (molecule, n, seed, SPARE * seconds, threads, first), seconds)

    def minimise(
        self,
        molecule: Molecule,
        positions: Float[np.ndarray, "n a 3"],
        field: str,
        steps: int = 2_000,
        seconds: float = CLOCK,
        threads: int = 1,
    ) -> tuple[Float64[np.ndarray, "n a 3"], Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Return relaxed positions, their energies in kcal/mol and whether each came to rest within the steps."""
        return self._ask("minimise", (molecule, positions, field, steps, threads), seconds)

    def energies(
        self, molecule: Molecule, positions: Float[np.ndarray, "n a 3"], field: str, seconds: float = CLOCK
    ) -> Float64[np.ndarray, " n"]:
        """Return the energy of each conformer in kcal/mol."""
        return self._ask("energies", (molecule, positions, field), seconds)

    def rmsd_matrix(
        self,
        molecule: Molecule,
        positions: Float[np.ndarray, "n a 3"],
        max_matches: int = 300,
        seconds: float = CLOCK,
    ) -> Float64[np.ndarray, "n n"]:
        """Return the least RMSD of the heavy atoms of every two conformers in ångström."""
        return self._ask("rmsd_matrix", (molecule, positions, max_matches), seconds)

    def terms(self, molecule: Molecule, variant: str = "MMFF94s", seconds: float = CLOCK) -> MMFFTerms:
        """Return the interactions of a molecule with their constants in MMFF94 or MMFF94s."""
        return self._ask("terms", (molecule, variant), seconds)

    def close(self) -> None:
        """End the child; a later call starts another one."""
        with self._lock:
            self._end()

    def _ask(self, name: str, values: tuple[Any, ...], seconds: float) -> Any:
        """Return the child's answer to one operation; whatever goes wrong is a `ValueError` with a sentence."""
        if not 0 < seconds <= 3_600:
            raise ValueError(f"seconds must be above 0 and at most 3,600, got {seconds:g}")
        request = frame_bytes((name, seconds, values))
        with self._lock:
            child = self._ready()
            began, clock = time.monotonic(), _Clock(child, seconds)
            try:
                state, answer, self._spent = _exchange(child, request)
            except (OSError, FrameError) as error:
                self._end(time.monotonic() - began)
                raise ValueError(_cut_off(name, clock.stop(), seconds, child.returncode)) from error
            except BaseException:
                self._end(time.monotonic() - began)
                raise
            finally:
                if clock.stop():
                    self._end()
        if state != "done":
            raise ValueError(answer)
        return answer

    def _ready(self) -> "subprocess.Popen[bytes]":
        """Return a child that has said it is up, started now where there is none."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        self._child, self.starts = _start(self._command), self.starts + 1
        clock = _Clock(self._child, STARTING)
        try:
            read_frame(_pipe(self._child.stdout))
        except (OSError, FrameError) as error:
            self._end()
            raise ValueError("the process for RDKit did not start: check that `import rdkit` works") from error
        finally:
            clock.stop()
        return self._child

    def _end(self, lost: float = 0.0) -> None:
        self._before, self._spent = self._before + self._spent + lost, 0.0
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                _close(pipe)
            self._child = None


class _Clock:
    """Kills a child when its seconds are over."""

    def __init__(self, child: "subprocess.Popen[bytes]", seconds: float) -> None:
        self._child, self._rang = child, False
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> bool:
        """Return whether the seconds were over; from now on the child is left alone."""
        self._timer.cancel()
        self._timer.join()
        return self._rang

    def _ring(self) -> None:
        self._rang = True
        self._child.kill()


def _start(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(os.path.abspath(part or ".") for part in sys.path)
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def _exchange(child: "subprocess.Popen[bytes]", request: bytes) -> tuple[str, Any, float]:
    """Return what a child answers: "done" or "refused", the value or the sentence, its processor seconds so far."""
    pipe = _pipe(child.stdin)
    pipe.write(request)
    pipe.flush()
    answer = read_frame(_pipe(child.stdout))
    if not isinstance(answer, tuple) or len(answer) != 3:
        raise FrameError("an answer has three parts")
    return answer


def _pipe(pipe: Any) -> BufferedIOBase:
    assert pipe is not None
    return pipe


def _close(pipe: Any) -> None:
    try:
        _pipe(pipe).close()
    except OSError:
        # What was still to be written has nobody to read it.
        return


def _cut_off(name: str, late: bool, seconds: float, code: int | None) -> str:
    """Return why there is no answer, in a sentence."""
    doing = name.replace("_", " ")
    if late or code == -getattr(signal, "SIGALRM", 0):
        return f"RDKit did not finish within {seconds:g} s ({doing}): give a smaller molecule, or more seconds"
    return f"RDKit crashed on this molecule ({doing}, exit {code}): give another one"


# What follows runs in the child.

OPERATIONS: dict[str, Callable[..., Any]] = {
    "read": chemistry.read_molecule,
    "embed": chemistry.embed,
    "minimise": chemistry.minimise,
    "energies": chemistry.energies,
    "rmsd_matrix": chemistry.rmsd_matrix,
    "terms": lambda molecule, variant: mmff_terms(chemistry.rdkit_mol(molecule), variant),
}


def serve() -> int:
    """Answer requests from standard input until it ends; nothing else can reach standard output."""
    source, target = _own_pipes()
    _limit()
    from rdkit import rdBase

    rdBase.DisableLog("rdApp.*")
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    target.write(frame_bytes("ready"))
    target.flush()
    threading.Thread(target=_listen, args=(source, requests), daemon=True).start()
    while True:
        name, seconds, values = requests.get()
        _alarm(seconds + 2.0)
        answer = _answered(name, values)
        _alarm(0.0)
        target.write(answer)
        target.flush()


def _own_pipes() -> tuple[BufferedIOBase, BufferedIOBase]:
    """Return the pipes to the parent under new numbers; 0 and 1 are closed to whatever reads or prints."""
    source, target = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return os.fdopen(source, "rb"), os.fdopen(target, "wb")


def _limit() -> None:
    """Bound this process's memory and let it leave no core file, where the system can."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (least, hard))
        except (ValueError, OSError):
            # Some systems know the limit and do not let it be set.
            continue


def _listen(source: BufferedIOBase, requests: "queue.SimpleQueue[Any]") -> None:
    """Hand on requests; when the parent is gone, end this process in the middle of whatever it does."""
    try:
        while True:
            requests.put(read_frame(source))
    finally:
        os._exit(0)


def _alarm(seconds: float) -> None:
    """Have the system end this process after some seconds, even inside RDKit; 0 takes that back."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _answered(name: str, values: tuple[Any, ...]) -> bytes:
    try:
        state, value = "done", OPERATIONS[name](*values)
    except ValueError as error:
        state, value = "refused", str(error)
    except MemoryError:
        state, value = "refused", "RDKit needs more memory than it may have for this molecule: give a smaller one"
    except Exception as error:
        doing = name.replace("_", " ")
        state, value = "refused", f"RDKit could not {doing} this molecule ({type(error).__name__}): give another one"
    try:
        return frame_bytes((state, value, time.process_time()))
    except (ValueError, TypeError) as error:
        return frame_bytes(("refused", str(error), time.process_time()))


if __name__ == "__main__":
    sys.exit(serve())
