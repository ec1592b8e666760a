"""`python run.py bench` lists the benchmarks; `python run.py bench NAME [options]` runs one."""

import importlib
import sys
from pathlib import Path

BENCHMARKS = {
    "desk": "runs that survive reloads, killed workers and servers, crowds and full disks, and what the desk costs",
    "firefly": "growing wider and deeper, and task after task: exactness, growth, memory, kills",
    "fusedream": "FuseDream against its baselines under the judge, and how long a visitor waits",
    "harmless": "harmless diversity on landscapes, pictures and ensembles, and what a step of it costs",
    "molecules": "MMFF94 in torch against RDKit, conformers and what they cost, hostile molecules",
    "pruning": "pruning by greedy imitation: laws, speed, accuracy against cost, against torch-pruning and other ways",
    "splitting": "growing by splitting: exact copies, laws of the loss, what scoring costs, toys, digits and CIFAR-10",
}


def main() -> int:
    """Run the benchmark named on the command line, or list them."""
    name, *rest = sys.argv[1:] or [""]
    if name not in BENCHMARKS:
        for known, text in BENCHMARKS.items():
            done = "measured" if (Path(__file__).parent / "results" / f"{known}.json").exists() else "not measured yet"
            print(f"{known:12} {text} ({done})")
        return 0 if name in ("", "-h", "--help", "list") else 2
    return importlib.import_module(f"benchmarks.{name}").main(rest)


if __name__ == "__main__":
    sys.exit(main())
