"""The terminal's door: a worker is called for at once, then the commands are loaded."""

__all__ = ["main"]

import sys
from collections.abc import Sequence

STOPPED = 130
WORKING = ("run", "resume", "undo", "replay")
# Help needs no worker, nor does a file of molecules, which this process works on itself.
WITHOUT = ("-h", "--help", "--smiles")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 a refused wish, 2 bad usage, 130 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] and words[0] in WORKING and not any(word.startswith(WITHOUT) for word in words):
            _call_worker()
        from studio.surfaces.cli_commands import parser

        options = parser().parse_args(words)
        return options.act(options)
    except ValueError as error:
        print(f"studio: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return STOPPED


def _call_worker() -> None:
    """Start a worker where none is there, so that it loads while the rest of this command does."""
    from studio.desk.store import Store, home
    from studio.desk.tending import SHIPPED, tend

    tend(Store(home()), [SHIPPED], ahead=True)


if __name__ == "__main__":
    sys.exit(main())
