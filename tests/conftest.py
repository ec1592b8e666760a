"""Every test runs with the shapes and types of the engine checked."""

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Runs of the tests are kept in a folder of their own, from the first import on.
os.environ["STUDIO_HOME"] = tempfile.mkdtemp(prefix="studio-tests-")

import pytest
import torch
from jaxtyping import install_import_hook

# The tensors here are small: more threads only wait for each other, the longer the busier the machine.
torch.set_num_threads(1)

LAYERS = ("core", "scenes", "files", "nets", "methods", "problems", "render")
install_import_hook([f"studio.{layer}" for layer in LAYERS], "typechecking.checked")


@pytest.fixture(scope="session", autouse=True)
def own_home():
    """Let no worker outlive the tests, nor what they kept."""
    yield
    from studio.desk.store import Store

    home = Path(os.environ["STUDIO_HOME"])
    _, _, pid = Store(home).slot(0)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(home, ignore_errors=True)
