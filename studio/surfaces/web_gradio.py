"""Gradio, imported so that it stays at home: no analytics, no look-ups of other hosts."""

__all__ = ["Base", "Component", "Soft", "api", "gr"]

import importlib.util
import os
import sys

# Both are read once, while gradio is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr
from gradio.components import Component
from gradio.events import api
from gradio.themes import Base, Soft

# Gradio looks for these anew for every plot of every visitor: milliseconds each where they are not installed.
for _absent in ("bokeh", "matplotlib"):
    if importlib.util.find_spec(_absent) is None:
        sys.modules.setdefault(_absent, None)  # type: ignore[arg-type]
