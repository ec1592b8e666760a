"""Ensembles alone: small networks learn the same examples and disagree where those leave them free."""

__all__ = ["demo", "main"]

from studio.studies.ensemble import Ensemble
from studio.surfaces.web import gallery, launch

demo = gallery((Ensemble,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((Ensemble,))


if __name__ == "__main__":
    main()
