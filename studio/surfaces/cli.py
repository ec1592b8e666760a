"""The terminal: list the studies, run one, cite it, look after weights, or open the gallery in the browser."""

__all__ = ["main"]

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from studio import __version__
from studio.catalog import CATALOG
from studio.core.controls import Choice, Control, Range, Words, controls, knobs
from studio.core.papers import bibtex
from studio.desk.local import Desk, Frame
from studio.files.archive import Recipe, png_bytes, write_whole
from studio.render.raster import still
from studio.scenes import Curves, Members
from studio.studies.study import Study

STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 a refused wish, 2 bad usage, 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
        return options.act(options)
    except ValueError as error:
        print(f"studio: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="studio", description="See optimisation happen.")
    parser.add_argument("--version", action="version", version=f"studio {__version__}")
    parser.set_defaults(act=_open, port=0, no_browser=False, study=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    page = commands.add_parser("open", help="open the gallery in the browser (the default)")
    page.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; the default takes a free one")
    page.add_argument("--no-browser", action="store_true", help="only print the address")
    page.set_defaults(act=_open)

    commands.add_parser("list", help="list the studies").set_defaults(act=_list)

    run = commands.add_parser("run", help="run a study")
    studies = run.add_subparsers(title="studies", metavar="STUDY", required=True)
    for study in CATALOG:
        _add_study(studies.add_parser(study.name, help=study.title, description=study.summary), study)

    cite = commands.add_parser("cite", help="print BibTeX for a study's papers")
    cite.add_argument("study", choices=[study.name for study in CATALOG])
    cite.set_defaults(act=_cite)

    commands.add_parser("doctor", help="print versions, device and weights for a report").set_defaults(act=_doctor)
    _add_weights(commands.add_parser("weights", help="list, get or verify pretrained weights"))
    return parser


def _add_study(parser: argparse.ArgumentParser, study: type[Study]) -> None:
    for control in controls(study):
        parser.add_argument(f"--{control.name.replace('_', '-')}", **_argument(control))
    parser.add_argument("--out", type=Path, help="where the result goes: .png (with the recipe in it) or .csv (curves)")
    parser.set_defaults(act=_run, study=study)


def _argument(control: Control) -> dict:
    about = ". ".join(part for part in (control.knob.label, control.knob.help) if part).replace("%", "%%")
    bound = control.bound
    settings: dict = {"default": control.default, "dest": control.name}
    if control.kind is bool:
        return settings | {"action": argparse.BooleanOptionalAction, "help": about}
    if isinstance(bound, Range):
        about += f" ({bound.low:g} to {bound.high:g}, default {control.default:g})"
    elif isinstance(bound, Choice):
        return settings | {"choices": bound.options, "help": f"{about} (default {control.default})"}
    elif isinstance(bound, Words):
        about += f" (at most {bound.limit} characters)"
    return settings | {"type": control.kind, "help": about, "metavar": control.kind.__name__.upper()}


def _open(options: argparse.Namespace) -> int:
    from studio.surfaces import web

    web.launch(CATALOG, port=options.port, open_browser=not options.no_browser)
    return 0


def _list(_: argparse.Namespace) -> int:
    width = max(len(study.name) for study in CATALOG)
    for study in CATALOG:
        print(f"{study.name:{width}}  {study.summary}")
    return 0


def _cite(options: argparse.Namespace) -> int:
    chosen = next(study for study in CATALOG if study.name == options.study)
    print("\n\n".join(bibtex(paper) for paper in chosen.papers))
    return 0


def _run(options: argparse.Namespace) -> int:
    study_type: type[Study] = options.study
    study = study_type(**{control.name: getattr(options, control.name) for control in controls(study_type)})
    out: Path | None = options.out
    _check_out(out)
    if study.forecast():
        print(study.forecast(), file=sys.stderr)
    frame = _watch(study)
    if frame is None:
        print("stopped before the first step: nothing to keep", file=sys.stderr)
        return STOPPED
    print(
        frame.snapshot.outcome or f"stopped at step {frame.snapshot.step} of {frame.snapshot.total}; best so far kept"
    )
    if out is not None:
        write_whole(out, _result(study, frame, out.suffix.lower()))
        print(f"saved {out}")
    return STOPPED if frame.stopped else 0


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix.lower() not in (".png", ".csv"):
        raise ValueError(f"--out must end in .png or .csv, got {out.name!r}")
    if not out.parent.is_dir():
        raise ValueError(f"--out names a folder that is not there ({out.parent}): make it first")


def _watch(study: Study) -> Frame | None:
    """Run to the end under a progress bar; Ctrl-C stops after the step at hand and keeps what there is."""
    from tqdm import tqdm

    desk = Desk()
    run_id = desk.submit(study)
    frame: Frame | None = None
    with (
        closing(desk.watch(run_id)) as frames,
        tqdm(total=1, unit="step", leave=False, dynamic_ncols=True) as bar,
    ):
        try:
            for frame in frames:
                bar.total = frame.snapshot.total
                bar.set_description(frame.snapshot.phase, refresh=False)
                bar.update(frame.snapshot.step - bar.n)
        except KeyboardInterrupt:
            if frame is not None:
                return Frame(frame.snapshot, frame.seconds, ended=True, stopped=True)
    return frame


def _result(study: Study, frame: Frame, suffix: str) -> bytes:
    scenes = study.view(frame.snapshot)
    if suffix == ".csv":
        lines = ["curve,series,x,y"]
        for scene in scenes:
            if isinstance(scene, Curves):
                for series in scene.series:
                    pairs = zip(series.x, series.y, strict=True)
                    lines += [f"{scene.title},{series.name},{x:.10g},{y:.10g}" for x, y in pairs]
            if isinstance(scene, Members):
                pairs = zip(scene.losses, scene.distances, strict=True)
                lines += [f"{scene.title},member {i + 1},{x:.10g},{y:.10g}" for i, (x, y) in enumerate(pairs)]
        return "\n".join(lines).encode() + b"\n"
    pixels = still(scenes)
    if pixels is None:
        raise ValueError(f"{study.name} draws no picture: choose an --out that ends in .csv")
    return png_bytes(pixels, Recipe(study.name, __version__, knobs(study)))


def _doctor(_: argparse.Namespace) -> int:
    from studio.surfaces.doctor import report

    print(report())
    return 0


def _add_weights(parser: argparse.ArgumentParser) -> None:
    from studio.surfaces import doctor

    acts = parser.add_subparsers(metavar="ACT", required=True)
    acts.add_parser("list", help="what there is, where it is looked for, and what is here").set_defaults(
        act=lambda _: doctor.weights_list()
    )
    for name, act, text in (
        ("get", doctor.weights_get, "download a set of weights, resumable and verified"),
        ("verify", doctor.weights_verify, "check that a set of weights is whole and fits its architecture"),
    ):
        command = acts.add_parser(name, help=text)
        command.add_argument("weights", help="a name from 'studio weights list'")
        command.set_defaults(act=lambda options, act=act: act(options.weights))


if __name__ == "__main__":
    sys.exit(main())
