"""The studio: research methods that optimise, to be seen at work in a browser, a notebook and a terminal."""

__all__ = ["__version__"]

__version__ = "0.1.0"
