"""Runs in the terminal: hand one in, watch it, stop it, go on with it, repeat it, write it as a file."""

__all__ = ["back", "delete", "exported", "listed", "replay", "resume", "run", "stop", "watch"]

import argparse
import shutil
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from studio.catalog import CATALOG
from studio.core.controls import controls
from studio.desk.desk import Desk
from studio.desk.exports import FORMATS, export, file_name
from studio.desk.store import Row
from studio.files.archive import write_whole
from studio.studies.study import Study
from studio.surfaces import cli_molecules

STOPPED = 130
OWNER = "terminal"


def run(options: argparse.Namespace) -> int:
    """Hand a study in and watch it to its end, or run it on a file of molecules; Ctrl-C keeps what there is."""
    if options.smiles_file is not None:
        return cli_molecules.run(options)
    if cli_molecules.takes_molecules(options.study) and (options.fresh or options.patience is not None):
        raise ValueError("--fresh and --patience are for a file of molecules: give it as --smiles-file")
    study_type: type[Study] = options.study
    given: dict[str, Any] = {control.name: getattr(options, control.name) for control in controls(study_type)}
    if options.open is not None:
        given = _opened(study_type, options.open, given)
    study = study_type(**given)
    out: Path | None = options.out
    _check_out(out)
    desk = Desk(CATALOG)
    if study.forecast():
        print(study.forecast(), file=sys.stderr)
    run_id = desk.submit(study)
    if options.detach:
        print(run_id)
        return 0
    status = _watched(desk, run_id)
    if out is not None and desk.store.row(run_id).frame:
        write_whole(out, export(desk, desk.store.row(run_id), out.suffix.lower()[1:]))
        print(f"saved {out}")
    return status


def listed(options: argparse.Namespace) -> int:
    """Print the runs that were kept, the newest first."""
    rows = Desk(CATALOG).store.search(" ".join(options.words))
    width = shutil.get_terminal_size((100, 20)).columns
    for row in rows:
        when = time.strftime("%d %b %H:%M", time.localtime(row.submitted))
        words = row.error or row.outcome or " ".join(str(v) for v in row.knobs.values() if " " in str(v))
        line = f"{row.id[:8]}  {when}  {row.study:14}  {row.state:11}  {row.step:>5,} of {row.total:<5,}  {words}"
        print("".join(letter if letter.isprintable() else " " for letter in line)[:width])
    if not rows:
        print("no run is kept here yet" if not options.words else "no run holds these words")
    return 0


def watch(options: argparse.Namespace) -> int:
    """Watch a run to its end, wherever it was handed in; Ctrl-C stops it."""
    desk, row = _found(options)
    return _watched(desk, row.id)


def stop(options: argparse.Namespace) -> int:
    """Stop a run after the step it is in."""
    desk, row = _found(options)
    if not row.open:
        raise ValueError(f"this run has ended already: it is {row.state}")
    desk.stop(row.id)
    for frame in desk.watch(row.id):
        row = frame.row
    print(f"stopped at step {row.step:,} of {row.total:,}; what it found is kept")
    return 0


def resume(options: argparse.Namespace) -> int:
    """Go on with a run that ended early, as a new run, and watch it."""
    desk, row = _found(options)
    return _watched(desk, desk.resume(row.id))


def back(options: argparse.Namespace) -> int:
    """Take a run back to an earlier step, as a new run that ends there."""
    desk, row = _found(options)
    fresh = desk.back(row.id, options.step)
    status = _watched(desk, fresh)
    return 0 if desk.store.row(fresh).step == options.step else status or 1


def replay(options: argparse.Namespace) -> int:
    """Repeat a run and say whether its bytes came out the same: exit status 0 where they did."""
    desk, row = _found(options)
    second = desk.again(row.id)
    status = _watched(desk, second)
    agree, words = desk.verdict(row.id, second)
    print(f"replayed {row.id[:8]}: {words}")
    return 0 if agree else status or 1


def exported(options: argparse.Namespace) -> int:
    """Write a run as a file."""
    desk, row = _found(options)
    out: Path = options.out or Path(file_name(row, options.to))
    if not out.parent.is_dir():
        raise ValueError(f"--out names a folder that is not there ({out.parent}): make it first")
    write_whole(out, export(desk, row, options.to))
    print(f"saved {out}")
    return 0


def delete(options: argparse.Namespace) -> int:
    """Delete a run that has ended, with its files."""
    desk, row = _found(options)
    desk.store.delete(row.id)
    print(f"deleted {row.id[:8]}")
    return 0


def _opened(study: type[Study], path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the knobs with those that a file sets, and say what was read; what was asked for otherwise stays."""
    try:
        with path.open("rb") as stream:
            data = stream.read(study.largest + 1)
    except OSError as error:
        raise ValueError(f"--open {path} cannot be read ({error.strerror}): check the path") from error
    if len(data) > study.largest:
        raise ValueError(f"{path.name} is too large: at most {study.largest / 2**20:,.0f} MB are opened")
    values, sentence = study.opened(data)
    print(sentence, file=sys.stderr)
    defaults = {control.name: control.default for control in controls(study)}
    return {name: values.get(name, value) if value == defaults[name] else value for name, value in given.items()}


def _found(options: argparse.Namespace) -> tuple[Desk, Row]:
    desk = Desk(CATALOG)
    return desk, desk.store.named(options.run)


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix.lower()[1:] not in FORMATS:
        raise ValueError(f"--out must end in {', '.join(f'.{kind}' for kind in FORMATS)}, got {out.name!r}")
    if not out.parent.is_dir():
        raise ValueError(f"--out names a folder that is not there ({out.parent}): make it first")


def _watched(desk: Desk, run_id: str) -> int:
    """Watch a run under a progress bar and say how it ended; Ctrl-C stops it after the step at hand, and waits."""
    try:
        _follow(desk, run_id)
    except KeyboardInterrupt:
        desk.stop(run_id)
        list(desk.watch(run_id))
    row = desk.store.row(run_id)
    if not row.frame:
        print("stopped before the first step: nothing to keep", file=sys.stderr)
        return STOPPED
    early = (
        f"{row.state} at step {row.step:,} of {row.total:,}; best so far kept ({row.id[:8]}, 'studio resume' goes on)"
    )
    print(row.outcome or early)
    return 0 if row.state == "done" else STOPPED


def _follow(desk: Desk, run_id: str) -> None:
    from tqdm import tqdm

    row = desk.store.row(run_id)
    if row.state == "queued" and desk.place(run_id)[0]:
        print(f"waiting for {desk.place(run_id)[0]} runs ahead of this one ({run_id[:8]})", file=sys.stderr)
    with (
        closing(desk.watch(run_id)) as frames,
        tqdm(total=1, unit="step", leave=False, dynamic_ncols=True) as bar,
    ):
        for frame in frames:
            bar.total = frame.snapshot.total
            bar.set_description(frame.snapshot.phase, refresh=False)
            bar.update(frame.snapshot.step - bar.n)
