"""Pruning alone: a trained network whose layers are imitated by few of their channels."""

__all__ = ["demo", "main"]

from studio.studies.prune import Prune
from studio.surfaces.web import gallery, launch

demo = gallery((Prune,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((Prune,))


if __name__ == "__main__":
    main()
