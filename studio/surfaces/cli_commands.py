"""The terminal's commands: list the studies, run one, look after runs and weights, or open the gallery."""

__all__ = ["parser"]

import argparse
from pathlib import Path

from studio import __version__
from studio.catalog import CATALOG
from studio.core.controls import Choice, Control, Range, Words, controls
from studio.core.papers import bibtex
from studio.desk.exports import FORMATS
from studio.studies.study import Study
from studio.surfaces import cli_molecules, cli_runs


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; what it parses has an `act` to call."""
    parser = argparse.ArgumentParser(prog="studio", description="See optimisation happen.")
    parser.add_argument("--version", action="version", version=f"studio {__version__}")
    _add_opening(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    page = commands.add_parser("open", help="open the gallery in the browser (the default)")
    _add_opening(page)

    commands.add_parser("list", help="list the studies").set_defaults(act=_list)

    run = commands.add_parser("run", help="run a study")
    studies = run.add_subparsers(title="studies", metavar="STUDY", required=True)
    for study in CATALOG:
        _add_study(studies.add_parser(study.name, help=study.title, description=study.summary), study)

    _add_runs(commands)

    cite = commands.add_parser("cite", help="print BibTeX for a study's papers")
    cite.add_argument("study", choices=[study.name for study in CATALOG])
    cite.set_defaults(act=_cite)

    commands.add_parser("doctor", help="print versions, device and weights for a report").set_defaults(act=_doctor)
    _add_weights(commands.add_parser("weights", help="list, get or verify pretrained weights"))
    return parser


def _add_opening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=0, help="the default takes a free one from 7860 on")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--workers", type=int, default=1, help="how many runs go on at once (default 1)")
    costs = "what a run may cost: minutes, waiting, each (open runs of a visitor), or a knob"
    parser.add_argument("--limit", action="append", default=[], metavar="NAME=NUMBER", help=costs)
    parser.add_argument("--host", default="127.0.0.1", help="another address needs --auth or --exposed")
    parser.add_argument("--auth", action="append", default=[], metavar="NAME:PASSWORD", help="who may come in")
    parser.add_argument("--exposed", action="store_true", help="let everybody in who can reach --host")
    parser.add_argument("--trust", action="append", default=[], metavar="HOST", help="a name the page answers to")
    parser.set_defaults(act=_open)


def _add_study(parser: argparse.ArgumentParser, study: type[Study]) -> None:
    for control in controls(study):
        parser.add_argument(f"--{control.name.replace('_', '-')}", **_argument(control))
    kinds = ", ".join(f".{kind}" for kind in FORMATS)
    parser.add_argument("--out", type=Path, help=f"where the result goes; its ending says what it is ({kinds})")
    kinds = ", ".join(study.files)
    about = f"a file of yours to begin with ({kinds})" if kinds else argparse.SUPPRESS
    parser.add_argument("--open", type=Path, metavar="PATH", help=about)
    parser.add_argument("--detach", action="store_true", help="only hand it in and print its id")
    cli_molecules.add_options(parser, study)
    parser.set_defaults(act=cli_runs.run, study=study)


def _add_runs(commands: argparse._SubParsersAction) -> None:
    runs = commands.add_parser("runs", help="list the runs that were kept")
    runs.add_argument("words", nargs="*", help="words of the study, its knobs or its outcome")
    runs.set_defaults(act=cli_runs.listed)
    for name, act, text in (
        ("watch", cli_runs.watch, "watch a run that was handed in here, on the page or in a notebook"),
        ("stop", cli_runs.stop, "stop a run; what it has so far is kept"),
        ("resume", cli_runs.resume, "go on with a run that was stopped or interrupted"),
        ("undo", cli_runs.back, "take a run back to an earlier step, to go on or export from there"),
        ("replay", cli_runs.replay, "run it again and say whether the bytes agree"),
        ("export", cli_runs.exported, "write a run as a file"),
        ("delete", cli_runs.delete, "delete a run and its files"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("run", help="its id, the first letters of it, or 'last'")
        command.set_defaults(act=act)
        if name == "undo":
            command.add_argument("--step", type=int, required=True, help="the last step that shall have been made")
        if name == "export":
            command.add_argument("--to", choices=FORMATS, default="png", help="the format (default png)")
            command.add_argument("--out", type=Path, help="where it goes; the default is a name of its own here")


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
    from studio.desk.policy import EXPOSED, Policy, policy_from
    from studio.surfaces import web

    pairs = tuple((name, password) for name, _, password in (pair.partition(":") for pair in options.auth))
    if not all(name and password for name, password in pairs):
        raise ValueError("--auth wants NAME:PASSWORD")
    if options.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {options.workers}")
    base = Policy() if options.host in web.LOOPBACK else EXPOSED
    web.launch(
        CATALOG,
        web.Launch(
            host=options.host, port=options.port, open_browser=not options.no_browser, auth=pairs,
            exposed=options.exposed, trusted=tuple(options.trust), workers=options.workers,
            policy=policy_from(options.limit, base),
        ),
    )  # fmt: skip
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
