"""Conformers alone: a molecule's shapes, spread over its torsions and minimised."""

__all__ = ["demo", "main"]

from studio.studies.conformers import Conformers
from studio.surfaces.web import gallery, launch

demo = gallery((Conformers,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((Conformers,))


if __name__ == "__main__":
    main()
