"""Growing and pruning in turn, alone: one budget of energy for both."""

__all__ = ["demo", "main"]

from studio.studies.grow_and_prune import GrowAndPrune
from studio.surfaces.web import gallery, launch

demo = gallery((GrowAndPrune,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((GrowAndPrune,))


if __name__ == "__main__":
    main()
