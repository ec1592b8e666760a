"""Many molecules in the terminal: each line of a file one run of a study, all results in one file, restartable.

    studio run conformers --smiles-file in.smi --out out.sdf --conformers 8 --field MMFF94

The molecules are worked on one after another in this process, and not handed to the desk: a thousand runs would fill
its queue, and its store with films that nobody watches. One thread does it: the tensors of a molecule are small, more
threads only wait for one another, and the bytes are the same whatever number of cores there is. What is done is kept
in `out.sdf.part` (see `cli_molecules_kept`): the same command goes on where it was stopped or killed, and the bytes
come out as if nothing had, unless a clock ends a molecule that it had not ended before.
"""

__all__ = ["add_options", "run", "takes_molecules"]

import argparse
import dataclasses
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from studio import __version__
from studio.core.controls import controls, knobs
from studio.core.devices import best_device
from studio.core.runs import last, within
from studio.files.archive import Recipe
from studio.problems.molecule_text import read_many, sdf_records
from studio.render.molecules_text import clean, sdf_text, xyz_text
from studio.scenes import Molecules
from studio.studies.study import Study
from studio.surfaces.cli_molecules_kept import FAILED, JOURNAL, LOCK, PART, Item, Kept, beside, keeping

DONE, SOME_FAILED, MISUSE, STOPPED = 0, 1, 2, 130
KNOB, CLOCK, STDIN = "molecule", "seconds", "-"
WRITERS: dict[str, Callable[[Molecules], str]] = {".sdf": sdf_text, ".xyz": xyz_text}
SMILES_ENDINGS, SDF_ENDINGS = (".smi", ".smiles", ".txt"), (".sdf", ".sd")
PATIENCE, LONGEST_PATIENCE = 120.0, 86_400.0
LONGEST_LINE = 10_000
REASON = 400
EVERY = 5.0
MANY = (
    "studio run {study} --smiles-file in.smi --out out.sdf runs one molecule after another with the same knobs. Those "
    "that fail are listed, each with its reason, in out.sdf.failed.smi, which can be handed in again. Stopped or "
    "killed, the same command goes on. Exit status: 0 all done, 1 some failed, 2 refused, 130 stopped."
)


def add_options(parser: argparse.ArgumentParser, study: type[Study]) -> None:
    """Add what a file of molecules needs to the parser of a study; where it takes none, only what refuses one."""
    if not takes_molecules(study):
        parser.add_argument("--smiles-file", help=argparse.SUPPRESS)
        return
    many = parser.add_argument_group("many molecules", MANY.format(study=study.name))
    source = (
        "a file of SMILES (.smi: a SMILES a line, its title behind it; - reads standard input) or of records (.sdf)"
    )
    many.add_argument("--smiles-file", metavar="PATH", help=f"{source}; --out then ends in .sdf or .xyz")
    clock = f"seconds a molecule may take before it is listed as failed (default {PATIENCE:g})"
    many.add_argument("--patience", type=float, metavar="FLOAT", help=clock)
    many.add_argument("--fresh", action="store_true", help="start over, and replace the file named by --out")


def takes_molecules(study: type[Study]) -> bool:
    """Return whether a study is about one molecule, which a knob of it names."""
    return any(control.name == KNOB for control in controls(study))


def run(options: argparse.Namespace) -> int:
    """Run a study on every molecule of a file and return 0; 1 where some failed, 2 where it is refused, 130 stopped."""
    try:
        return _run(options)
    except ValueError as error:
        print(f"studio: {error}", file=sys.stderr)
    except OSError as error:
        said = ": ".join(str(part) for part in (error.strerror or error, error.filename) if part)
        print(f"studio: {said}; what is whole is kept, run it again once this is mended", file=sys.stderr)
    return MISUSE


def _run(options: argparse.Namespace) -> int:
    import torch

    _check(options)
    source, out, patience = options.smiles_file, options.out, options.patience or PATIENCE
    study = _study(options, patience)
    torch.set_num_threads(1)
    total = None if source == STDIN else sum(1 for _ in _items(source))
    with keeping(out, _recipe(study, patience), options.fresh) as kept:
        left = kept.caught_up(_items(source))
        first = next(left, None)
        if first is None and not kept.seen:
            kept.drop()
            raise ValueError("there is no molecule in the input: give a SMILES a line, its title behind it")
        try:
            with _progress(kept, total) as show:
                for item in itertools.chain([first] if first else [], left):
                    records, reason = _outcome(study, item, patience, WRITERS[out.suffix.lower()])
                    kept.add(item, records, reason)
                    show(f"{item.where}: {reason}" if reason else "")
        except KeyboardInterrupt:
            command = f"the same command{' without --fresh' if options.fresh else ''}"
            print(f"\nstopped: {_tally(kept)}, kept in {beside(out, PART)}; {command} goes on", file=sys.stderr)
            return STOPPED
        kept.finish()
    print(f"saved {out}: {_tally(kept)}" + (f", listed in {beside(out, FAILED)}" if kept.failed else ""))
    return SOME_FAILED if kept.failed else DONE


def _check(options: argparse.Namespace) -> None:
    """Refuse, in one sentence, what does not go together or is not there."""
    source, out, study = options.smiles_file, options.out, options.study
    if not takes_molecules(study):
        raise ValueError(f"--smiles-file is for studies of a molecule, such as conformers: {study.name} takes none")
    if options.detach:
        raise ValueError("--detach is for the desk, and a file of molecules is worked on here: leave it out")
    if getattr(options, KNOB) != next(control.default for control in controls(study) if control.name == KNOB):
        raise ValueError(f"--{KNOB} and --smiles-file both say what to work on: give one of them")
    if options.patience is not None and not 1.0 <= options.patience <= LONGEST_PATIENCE:
        raise ValueError(f"--patience must be between 1 and {LONGEST_PATIENCE:,.0f} seconds, got {options.patience:g}")
    if out is None or out.suffix.lower() not in WRITERS:
        raise ValueError(f"--smiles-file needs an --out that ends in {' or '.join(WRITERS)}")
    if not out.parent.is_dir():
        raise ValueError(f"--out names a folder that is not there ({out.parent}): make it first")
    if source == STDIN:
        return
    if Path(source).suffix.lower() not in (*SMILES_ENDINGS, *SDF_ENDINGS):
        raise ValueError(f"--smiles-file must end in {', '.join((*SMILES_ENDINGS, *SDF_ENDINGS))}, or be -")
    if not Path(source).is_file():
        raise ValueError(f"--smiles-file names a file that is not there ({source})")
    if Path(source).resolve() in {beside(out.resolve(), ending) for ending in ("", PART, JOURNAL, LOCK, FAILED)}:
        raise ValueError(f"--smiles-file is a file that belongs to --out ({out.name}): choose another --out")


def _study(options: argparse.Namespace, patience: float) -> Study:
    """Return the study with its knobs; RDKit has no more seconds for an answer than a molecule has."""
    values = {control.name: getattr(options, control.name) for control in controls(options.study)}
    if CLOCK in values:
        values[CLOCK] = min(values[CLOCK], patience)
    return options.study(**values)


def _recipe(study: Study, patience: float) -> Recipe:
    """Return all that the bytes of the result depend on, but for the molecules."""
    import rdkit
    import torch

    values = {name: value for name, value in knobs(study).items() if name != KNOB} | {"patience": patience}
    values["device"] = best_device(str(values.get("device", "cpu"))).type
    return Recipe(study.name, __version__, values | {"rdkit": rdkit.__version__, "torch": torch.__version__})


def _items(source: str) -> Iterator[Item]:
    """Yield the molecules of a file or of standard input, one in memory at a time."""
    if Path(source).suffix.lower() in SDF_ENDINGS:
        for number, title, text in sdf_records(Path(source)):
            yield Item(f"record {number}" + (f" ({clean(title)})" if title else ""), text)
        return
    with _stream(source) as stream:
        for number, title, smiles in read_many(_lines(stream)):
            yield Item(f"line {number}", f"{smiles} {title}".strip(), f"{clean(smiles)}\t{clean(title)}".strip())


@contextmanager
def _stream(source: str) -> Iterator[TextIO]:
    if source != STDIN:
        with open(source, encoding="utf-8-sig", errors="replace") as stream:
            yield stream
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    yield sys.stdin


def _lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a stream, of each only its start where it is so long that it is none of molecules."""
    begins = True
    for part in iter(lambda: stream.readline(LONGEST_LINE), ""):
        if begins:
            yield part
        begins = part.endswith("\n")


def _outcome(study: Study, item: Item, patience: float, write: Callable[[Molecules], str]) -> tuple[bytes, str]:
    """Return a molecule's records, or none and the reason; nothing that one molecule does stops the others."""
    try:
        return _records(study, item, patience, write).encode("utf-8", "replace"), ""
    except ValueError as error:
        return b"", clean(str(error), REASON)
    except Exception as error:
        said = clean(f"{type(error).__name__}: {error}", REASON // 2)
        return b"", f"the search broke off ({said}): give another molecule"


def _records(study: Study, item: Item, patience: float, write: Callable[[Molecules], str]) -> str:
    chosen = dataclasses.replace(study, **{KNOB: item.text})
    snapshot = last(within(chosen.run(), patience))
    if snapshot.step < snapshot.total:
        raise ValueError(f"it was not done after {patience:g} s: give it more --patience, or ask for less")
    return write(next(scene for scene in chosen.view(snapshot) if isinstance(scene, Molecules)))


@contextmanager
def _progress(kept: Kept, total: int | None) -> Iterator[Callable[[str], None]]:
    """Give what shows, after each molecule, how far it is: a bar in a terminal, else a line every few seconds."""
    from tqdm import tqdm

    begun, earlier, told = time.monotonic(), kept.seen, time.monotonic()
    bar = tqdm(
        total=total, initial=earlier, unit="molecule", leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty()
    )

    def show(trouble: str) -> None:
        nonlocal told
        if trouble:
            tqdm.write(trouble, file=sys.stderr)
        bar.set_postfix_str(f"{kept.failed} failed", refresh=False)
        bar.update()
        now = time.monotonic()
        if bar.disable and now >= told + EVERY:
            told = now
            print(_line(kept, total, (now - begun) / (kept.seen - earlier)), file=sys.stderr, flush=True)

    if earlier:
        print(f"going on behind {earlier:,} that were kept: {_tally(kept)}", file=sys.stderr)
    with bar:
        yield show


def _line(kept: Kept, total: int | None, each: float) -> str:
    """Return how far it is in one line: done, failed, the time of one molecule and what is left at that rate."""
    from tqdm import tqdm

    left = f", {tqdm.format_interval((total - kept.seen) * each)} left" if total is not None else ""
    return f"{_tally(kept)}{f' of {total:,}' if total is not None else ''}, {each:.2f} s each{left}"


def _tally(kept: Kept) -> str:
    return f"{kept.seen - kept.failed:,} done, {kept.failed:,} failed"
