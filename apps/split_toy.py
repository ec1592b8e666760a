"""Split a toy alone: a handful of neurons fit a function, stall, and are split."""

__all__ = ["demo", "main"]

from studio.studies.split_toy import SplitToy
from studio.surfaces.web import gallery, launch

demo = gallery((SplitToy,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((SplitToy,))


if __name__ == "__main__":
    main()
