"""The page of the walk in a process of its own: `python -m benchmarks.desk_server FOLDER`, until its input closes."""

__all__ = ["main"]

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from benchmarks.desk_study import Walk
from studio.catalog import CATALOG
from studio.desk.policy import Policy
from studio.surfaces.web import Launch, launch

LOOK = 0.005
DEPTH = 14


def main() -> int:
    """Serve until the process that asked for it is gone."""
    parser = argparse.ArgumentParser(prog="benchmarks.desk_server", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=16, help="open runs of a visitor, 0 for any number")
    parser.add_argument("--shipped", action="store_true", help="serve the studio's own studies")
    parser.add_argument("--profile", type=Path, help="write here, now and then, where the time goes")
    options = parser.parse_args()
    os.environ["STUDIO_HOME"] = str(options.folder)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if options.profile is not None:
        threading.Thread(target=_profile, args=(options.profile,), daemon=True).start()
    launch(CATALOG if options.shipped else (Walk,), Launch(open_browser=False, policy=Policy(each=options.each)))
    return 0


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def _profile(path: Path) -> None:
    """Look at every thread many times a second and count where each stands; write the counts every few seconds."""
    stacks: Counter[str] = Counter()
    looks, due = 0, time.monotonic() + 5
    while True:
        time.sleep(LOOK)
        looks += 1
        for thread, frame in sys._current_frames().items():
            if thread != threading.get_ident():
                lines, now = [], frame
                while now is not None and len(lines) < DEPTH:
                    file = "/".join(now.f_code.co_filename.split("/")[-2:])
                    lines.append(f"{file}:{now.f_lineno} {now.f_code.co_name}")
                    now = now.f_back
                stacks[" < ".join(lines)] += 1
        if time.monotonic() >= due:
            due = time.monotonic() + 5
            path.write_text(json.dumps({"looks": looks, "stacks": stacks.most_common(200)}))


if __name__ == "__main__":
    sys.exit(main())
