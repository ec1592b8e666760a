"""Every test runs with the shapes and types of the engine checked."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from jaxtyping import install_import_hook

# The tensors here are small: more threads only wait for each other, the longer the busier the machine.
torch.set_num_threads(1)

LAYERS = ("core", "scenes", "files", "nets", "methods", "problems", "render")
install_import_hook([f"studio.{layer}" for layer in LAYERS], "typechecking.checked")
