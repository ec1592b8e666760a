"""Gradio, imported so that it stays at home: no analytics, no look-ups of other hosts."""

__all__ = ["Base", "Component", "Soft", "api", "gr"]

import os

# Both are read once, while gradio is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr
from gradio.components import Component
from gradio.events import api
from gradio.themes import Base, Soft
