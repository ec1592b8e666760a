"""What a text with molecules holds: one SMILES or mol block with its title, or the records of a whole file."""

__all__ = ["LONGEST_BLOCK", "LONGEST_SMILES", "Source", "plain", "read_many", "sdf_records", "source"]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

LONGEST_SMILES = 2_000
LONGEST_BLOCK = 200_000
LONGEST_TITLE = 80


@dataclass(frozen=True)
class Source:
    """One molecule as text: its SMILES or its mol block, which of the two, its title, and what was left out."""

    text: str
    is_block: bool
    title: str
    notes: tuple[str, ...] = ()


def source(text: str) -> Source:
    """Return the SMILES (a title may follow it), the mol block or the first record of an SDF in a text.

    Raises `ValueError` where it is none of them, or longer than any may be.
    """
    text = text[: 2 * LONGEST_BLOCK]
    if not text.strip():
        raise ValueError("there is no molecule in an empty text: give a SMILES such as CCO, or a mol block")
    is_block = "M  END" in text or ("\n" in text.strip() and ("V2000" in text or "V3000" in text))
    return _block(text) if is_block else _smiles(text)


def read_many(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Yield (line number from 1, title, SMILES) of a .smi file's lines, without comments (#) and blank lines."""
    for number, line in enumerate(lines, start=1):
        words = line[:LONGEST_BLOCK].strip().split(maxsplit=1)
        if words and not words[0].startswith("#"):
            yield number, plain(words[1]) if len(words) > 1 else "", words[0][: LONGEST_SMILES + 1]


def sdf_records(source: Path | str) -> Iterator[tuple[int, str, str]]:
    """Yield (record number from 1, title, text) of an SDF, from its file or its text, one record in memory at a time.

    A record longer than 200,000 characters is cut there: reading it then says so.
    """
    with _lines(source) as lines:
        number, kept, size = 1, [], 0
        for line in iter(lambda: lines.readline(LONGEST_BLOCK), ""):
            if line.startswith("$$$$"):
                yield _record(number, kept)
                number, kept, size = number + 1, [], 0
            elif size <= LONGEST_BLOCK:
                kept.append(line)
                size += len(line)
        if "".join(kept).strip():
            yield _record(number, kept)


def plain(text: str) -> str:
    """Return a title that is safe to show as text: printable, in one line, at most 80 characters."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * LONGEST_TITLE])
    return " ".join(shown.split())[:LONGEST_TITLE].strip()


def _smiles(text: str) -> Source:
    lines = [line for line in text[:LONGEST_BLOCK].strip().splitlines() if line.strip()]
    if len(lines) > 1:
        raise ValueError("this has several lines but no 'M  END': give one SMILES in one line, or a whole mol block")
    smiles, *title = lines[0].split(maxsplit=1)
    if len(smiles) > LONGEST_SMILES:
        raise ValueError(
            f"a SMILES may have at most {LONGEST_SMILES:,} characters, this one has {len(smiles):,}: "
            "give a smaller molecule"
        )
    for place, letter in enumerate(smiles, start=1):
        if not "!" <= letter <= "~":
            raise ValueError(f"this is not a SMILES: {letter!a} at place {place} is no letter of a SMILES")
    return Source(smiles, False, plain(title[0]) if title else "")


def _block(text: str) -> Source:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    end = text.find("M  END")
    if end < 0:
        raise ValueError("this mol block has no line 'M  END': it was cut short, copy all of it")
    if end > LONGEST_BLOCK:
        raise ValueError(f"a mol block may have at most {LONGEST_BLOCK:,} characters: give a smaller molecule")
    block = text[:end] + "M  END\n"
    if "\0" in block:
        raise ValueError("this mol block has a NUL character in it: it is damaged, save it again")
    _, _, rest = text[end:].partition("$$$$")
    notes = ("only the first record of the file was read",) if rest.strip() else ()
    return Source(block, True, plain(block.split("\n", 1)[0]), notes)


def _lines(source: Path | str) -> Any:
    if isinstance(source, str):
        return StringIO(source)
    return source.open(encoding="utf-8", errors="replace")


def _record(number: int, lines: list[str]) -> tuple[int, str, str]:
    return number, plain(lines[0]) if lines else "", "".join(lines)[: LONGEST_BLOCK + 1]
