"""FuseDream alone: type a prompt and watch an image being dreamed."""

__all__ = ["demo", "main"]

from studio.studies.fusedream import FuseDream
from studio.surfaces.web import gallery, launch

demo = gallery((FuseDream,))


def main() -> None:
    """Open the page in the browser and stay until Ctrl-C."""
    launch((FuseDream,))


if __name__ == "__main__":
    main()
