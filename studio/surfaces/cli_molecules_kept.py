"""Records that grow molecule by molecule beside a journal, so that a run that was killed goes on where it was.

`OUT.part` holds the records of all molecules so far, `OUT.part.jsonl` a line about each: the hash of its input, where
its records end and their hash, or why there are none. A molecule is whole when its line is there and agrees with its
records; what lies behind the last whole one is cut off. Neither file is read into memory.
"""

__all__ = ["Item", "Kept", "beside", "keeping"]

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from studio.files.archive import Recipe, parse_recipe, recipe_text, write_whole

PART, JOURNAL, LOCK, FAILED = ".part", ".part.jsonl", ".part.lock", ".failed.smi"
LONGEST_LINE = 2**20


@dataclass(frozen=True)
class Item:
    """One molecule of the input: where it stands there ("line 3"), its text, and the line that hands it in again."""

    where: str
    text: str
    again: str = ""

    @property
    def digest(self) -> str:
        """Return the hash of all that is known of it."""
        return _hash(json.dumps([self.where, self.text]).encode())


@dataclass(frozen=True)
class Begun:
    """The first line of a journal: the recipe as text, and whether the result may replace a file that is there."""

    recipe: str
    replaces: bool


@dataclass(frozen=True)
class Entry:
    """What became of one molecule: `end` is where its records end; a `reason` says why there are none."""

    source: str
    end: int
    records: str
    where: str = ""
    reason: str = ""
    again: str = ""


@contextmanager
def keeping(out: Path, recipe: Recipe, fresh: bool) -> Iterator["Kept"]:
    """Give what is kept for the file `out`, to one process at a time; `fresh` forgets what there was.

    Raises `ValueError`, in one sentence, where another process has it, where `out` is there already, and where what is
    kept was made by another recipe.
    """
    path = beside(out, LOCK)
    try:
        with FileLock(path).acquire(timeout=0):
            try:
                with closing(Kept(out, recipe, fresh)) as kept:
                    yield kept
            finally:
                path.unlink(missing_ok=True)
    except Timeout as error:
        raise ValueError(f"another run is writing {out.name}: wait for it, or choose another --out") from error


class Kept:
    """The records of one file and their journal; `seen` and `failed` count the molecules in them."""

    def __init__(self, out: Path, recipe: Recipe, fresh: bool) -> None:
        self.seen = self.failed = 0
        self._out, self._part, self._diary = out, beside(out, PART), beside(out, JOURNAL)
        self._end = 0
        if fresh:
            self._part.unlink(missing_ok=True)
        if not self._part.exists():
            # The records got their name, or were taken away: the journal alone says nothing.
            self._diary.unlink(missing_ok=True)
        if not self._diary.exists():
            self._begin(recipe, fresh)
        self._check(recipe)
        self._records, self._journal = self._part.open("r+b"), self._diary.open("r+b")
        self._journal.readline(LONGEST_LINE)
        self._place = self._journal.tell()

    def caught_up(self, items: Iterator[Item]) -> Iterator[Item]:
        """Return the items behind those whose records are whole; a `ValueError` where they are not the journal's."""
        while (entry := self._next_whole()) is not None:
            item = next(items, None)
            if item is None or item.digest != entry.source:
                there = f"differs at {item.where}" if item is not None else "is shorter"
                raise ValueError(
                    f"the input {there} from the one that {self._part.name} was begun with: "
                    "give that one, or start over with --fresh"
                )
            self._count(entry)
        self._journal.seek(self._place)
        self._journal.truncate()
        self._records.seek(self._end)
        self._records.truncate()
        return items

    def add(self, item: Item, records: bytes, reason: str) -> None:
        """Append a molecule's records, and then its line in the journal; without records, the reason."""
        end = self._end + len(records)
        entry = Entry(item.digest, end, _hash(records))
        if reason:
            entry = Entry(item.digest, end, _hash(records), item.where, reason, item.again)
        self._records.write(records)
        self._records.flush()
        self._journal.write(_line(entry))
        self._journal.flush()
        self._count(entry)

    def finish(self) -> None:
        """Give the records their name once the disk has them, list those that failed, and forget the journal."""
        os.fsync(self._records.fileno())
        self._list_failed()
        self.close()
        os.replace(self._part, self._out)
        _sync(self._out.parent)
        self._diary.unlink()

    def close(self) -> None:
        """Close the files; what is in them stays."""
        self._records.close()
        self._journal.close()

    def drop(self) -> None:
        """Take the files away, where there was nothing to do."""
        self.close()
        self._part.unlink()
        self._diary.unlink()

    def _begin(self, recipe: Recipe, fresh: bool) -> None:
        if self._part.exists() and self._part.stat().st_size:
            raise ValueError(
                f"{self._part.name} is there without its journal: move it away, or start over with --fresh"
            )
        self._refuse_existing(fresh)
        self._part.touch()
        write_whole(self._diary, _line(Begun(recipe_text(recipe), self._out.exists())))

    def _check(self, recipe: Recipe) -> None:
        """Refuse to mix what two recipes made."""
        with self._diary.open("rb") as stream:
            begun = _begun(stream.readline(LONGEST_LINE))
        if begun is None:
            raise ValueError(f"{self._diary.name} is damaged: start over with --fresh")
        before = parse_recipe(begun.recipe)
        if before != parse_recipe(recipe_text(recipe)):
            raise ValueError(
                f"{self._part.name} was begun with {_differing(before, recipe)}: "
                "give the same again, or start over with --fresh"
            )
        self._refuse_existing(begun.replaces)

    def _refuse_existing(self, allowed: bool) -> None:
        if self._out.exists() and not allowed:
            raise ValueError(f"{self._out.name} is there already: choose another --out, or replace it with --fresh")

    def _next_whole(self) -> Entry | None:
        """Return the next line of the journal where it is whole and agrees with the records."""
        entry = _entry(self._journal.readline(LONGEST_LINE))
        if entry is None or not self._end <= entry.end <= os.fstat(self._records.fileno()).st_size:
            return None
        self._records.seek(self._end)
        return entry if _hash(self._records.read(entry.end - self._end)) == entry.records else None

    def _count(self, entry: Entry) -> None:
        self.seen, self.failed = self.seen + 1, self.failed + bool(entry.reason)
        self._end, self._place = entry.end, self._journal.tell()

    def _list_failed(self) -> None:
        """Write those that failed as a SMILES file, the reason of each in a comment above it."""
        listed = beside(self._out, FAILED)
        if not self.failed:
            listed.unlink(missing_ok=True)
            return
        temporary = listed.with_name(f".{listed.name}{PART}")
        with temporary.open("w", encoding="utf-8") as stream:
            self._journal.seek(0)
            for line in iter(lambda: self._journal.readline(LONGEST_LINE), b""):
                entry = _entry(line)
                if entry is not None and entry.reason:
                    stream.write(f"# {entry.where}: {entry.reason}\n" + (f"{entry.again}\n" if entry.again else ""))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, listed)


def beside(out: Path, ending: str) -> Path:
    """Return the name of a file that belongs to `out`."""
    return out.with_name(out.name + ending)


def _line(record: Begun | Entry) -> bytes:
    return f"{json.dumps(asdict(record), sort_keys=True)}\n".encode()


def _begun(line: bytes) -> Begun | None:
    try:
        found = Begun(**json.loads(line))
    except (ValueError, TypeError):
        return None
    return found if isinstance(found.recipe, str) else None


def _entry(line: bytes) -> Entry | None:
    """Return the entry in a line of a journal; None where it is another line, or half of one."""
    try:
        found = Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None
    return found if line.endswith(b"\n") and isinstance(found.end, int) else None


def _differing(before: Recipe, now: Recipe) -> str:
    """Return in words what of a recipe was another."""
    one, other = ({"version": recipe.version, **recipe.knobs} for recipe in (before, now))
    names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name)} (now {other.get(name)})" for name in names[:4]) or "another study"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync(folder: Path) -> None:
    """Wait until the disk has the names in a folder, where the system can."""
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
