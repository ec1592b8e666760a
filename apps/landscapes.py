"""Landscapes alone: a cloud of points rolls downhill."""

__all__ = ["demo", "main"]

from studio.studies.landscapes import Landscapes
from studio.surfaces.web import gallery, launch

demo = gallery((Landscapes,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((Landscapes,))


if __name__ == "__main__":
    main()
