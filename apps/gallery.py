"""The whole studio: every study in a tab."""

__all__ = ["demo", "main"]

from studio.catalog import CATALOG
from studio.surfaces.web import gallery, launch

demo = gallery(CATALOG)


def main() -> None:
    """Open the gallery in the browser and stay until Ctrl-C."""
    launch(CATALOG)


if __name__ == "__main__":
    main()
