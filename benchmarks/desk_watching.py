"""Watchers of a run, many in one process, through the page's own stream: `python -m benchmarks.desk_watching`.

They ask for what a browser asks for (the page's watch event over server-sent events), and do little with it, so that
what is measured is the server.
"""

__all__ = ["main"]

import asyncio
import json
import re
import sys
import urllib.request
import uuid
from urllib.parse import urlsplit

LIMIT = 2**24
PATIENCE = 240.0
STEP = re.compile(rb"step ([\d,]+) of ([\d,]+)")
Found = dict[str, int]


def main(arguments: list[str]) -> int:
    """Watch a run of a page with so many watchers and print what each saw, as JSON: ADDRESS RUN COUNT."""
    address, run_id, count = arguments[0], arguments[1], int(arguments[2])
    with urllib.request.urlopen(f"{address}config", timeout=60) as answer:
        event, trigger = watch_event(json.load(answer))
    print(json.dumps(asyncio.run(_all(address, run_id, count, event, trigger))))
    return 0


def watch_event(config: dict) -> tuple[int, int]:
    """Return the numbers of a page's first watch event and of the hidden box that sets it off."""
    tickets = {
        part["id"] for part in config["components"] if part["type"] == "textbox" and part["props"].get("label") == "Run"
    }
    for event in config["dependencies"]:
        for target, kind in event["targets"]:
            if target in tickets and kind == "change":
                return event["id"], target
    raise ValueError("this page has no watch event")


async def _all(address: str, run_id: str, count: int, event: int, trigger: int) -> list[Found]:
    watchers = (_watch(address, run_id, event, trigger) for _ in range(count))
    return await asyncio.gather(*watchers)


async def _watch(address: str, run_id: str, event: int, trigger: int) -> Found:
    """Watch until the server says that this is all; count frames, and note the last step and how it ended."""
    found = {"frames": 0, "live": 0, "step": -1, "total": -2, "done": 0, "completed": 0, "queued": 0}
    session = uuid.uuid4().hex
    order = {
        "data": [run_id], "event_data": None, "fn_index": event, "trigger_id": trigger, "session_hash": session,
    }  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            body = json.dumps(order).encode()
            reader, writer = await _ask(address, "POST", "/gradio_api/queue/join", body)
            await reader.read()
            writer.close()
            reader, writer = await _ask(address, "GET", f"/gradio_api/queue/data?session_hash={session}")
            async for line in reader:
                if line.startswith(b"data: ") and _seen(line, found):
                    break
            writer.close()
    except (TimeoutError, OSError):
        found["completed"] = 0
    return found


async def _ask(
    address: str, method: str, path: str, body: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=LIMIT)
    kind = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n" if body else ""
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n{kind}\r\n".encode() + body)
    await writer.drain()
    return reader, writer


def _seen(line: bytes, found: Found) -> bool:
    """Take in one message; True for the last one."""
    found["queued"] += b'"msg":"estimation"' in line
    moving = b'"msg":"process_generating"' in line
    completed = b'"msg":"process_completed"' in line
    for step, total in STEP.findall(line):
        found["step"], found["total"] = int(step.replace(b",", b"")), int(total.replace(b",", b""))
    found["frames"] += moving
    found["live"] += moving and 0 < found["step"] < found["total"]
    found["done"] = found["done"] or int(b"st-done" in line)
    found["completed"] = found["completed"] or int(completed and b'"success":true' in line)
    return completed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
