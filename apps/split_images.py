"""Split a classifier alone: a tiny network learns and grows where it asks for it."""

__all__ = ["demo", "main"]

from studio.studies.split_images import SplitImages
from studio.surfaces.web import gallery, launch

demo = gallery((SplitImages,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((SplitImages,))


if __name__ == "__main__":
    main()
