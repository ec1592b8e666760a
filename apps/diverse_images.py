"""Diverse images alone: one prompt, several answers."""

__all__ = ["demo", "main"]

from studio.studies.diverse_images import DiverseImages
from studio.surfaces.web import gallery, launch

demo = gallery((DiverseImages,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((DiverseImages,))


if __name__ == "__main__":
    main()
