"""What a measurement leaves behind: one JSON file with the command, the seeds, the machine and the figures."""

__all__ = ["machine", "write_record"]

import json
import os
import platform
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, str | int]:
    """Return what the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_record(name: str, command: str, seeds: list[int], figures: dict[str, object]) -> Path:
    """Write `benchmarks/results/NAME.json`; figures measured earlier and not now are kept."""
    path = RESULTS / f"{name}.json"
    earlier = json.loads(path.read_text()).get("figures", {}) if path.exists() else {}
    record = {"command": command, "seeds": seeds, "machine": machine(), "figures": earlier | figures}
    RESULTS.mkdir(exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=2, sort_keys=False) + "\n")
    temporary.replace(path)
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
