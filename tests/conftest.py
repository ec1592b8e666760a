"""Every test runs with the shapes and types of the engine checked."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

LAYERS = ("core", "scenes", "files", "nets", "methods", "problems", "render")
install_import_hook([f"studio.{layer}" for layer in LAYERS], "typechecking.checked")
