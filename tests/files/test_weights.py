"""Weights by card: found, verified, fetched in pieces, and refused in one sentence."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.files.weights import (
    Card,
    CardFile,
    Found,
    Missing,
    assets_folder,
    card,
    cards,
    digest_of,
    download,
    find,
    load_tensors,
)

PAYLOAD = bytes(range(256)) * 16_384


@contextmanager
def server(cut_after: int = 0, ranges: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Serve PAYLOAD on this machine; `cut_after` closes the first connection after so many bytes."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and ranges else 0
            if start >= len(PAYLOAD):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(PAYLOAD)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(PAYLOAD) - start))
            self.end_headers()
            end = cut_after if cut_after and len(asked) == 1 else len(PAYLOAD)
            self.wfile.write(PAYLOAD[start:end])

        def log_message(self, *_: object) -> None:
            return

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}/file.bin", asked
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


def card_for(url: str, sha256: str = "", limit: int = 10**8) -> Card:
    return Card("tiny", "a test", "here", "none", (CardFile("file.bin", url, sha256, limit),))


RIGHT = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on_where_it_stopped(tmp_path: Path, ranges: bool) -> None:
    with server(cut_after=2_500_000, ranges=ranges) as (url, asked):
        with pytest.raises(ValueError, match="what has arrived is kept"):
            list(download(card_for(url, RIGHT), tmp_path))
        assert [p.name for p in tmp_path.iterdir()] == ["file.bin.part"]
        seen = list(download(card_for(url, RIGHT), tmp_path))
    assert (tmp_path / "file.bin").read_bytes() == PAYLOAD
    assert asked[0] == "" and asked[1].startswith("bytes=2") and seen[-1].done == seen[-1].total == len(PAYLOAD)
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_a_complete_part_is_taken_and_a_finished_file_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(PAYLOAD)
    with server() as (url, asked):
        list(download(card_for(url, RIGHT), tmp_path))
        list(download(card_for(url, RIGHT), tmp_path))
    assert len(asked) == 1 and (tmp_path / "file.bin").read_bytes() == PAYLOAD


def test_a_wrong_checksum_is_thrown_away(tmp_path: Path) -> None:
    with server() as (url, _), pytest.raises(ValueError, match="wrong SHA-256"):
        list(download(card_for(url, "0" * 64), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_over_its_cap_is_not_fetched(tmp_path: Path) -> None:
    with server() as (url, _), pytest.raises(ValueError, match="larger than 1,000 bytes"):
        list(download(card_for(url, "", 1000), tmp_path))
    assert not (tmp_path / "file.bin").exists()


def test_no_connection_is_one_sentence_at_once(tmp_path: Path) -> None:
    with server() as (url, _):
        pass
    began = time.monotonic()
    with pytest.raises(ValueError, match="could not be fetched") as fault:
        list(download(card_for(url), tmp_path))
    assert time.monotonic() - began < 2 and str(tmp_path) in str(fault.value) and "\n" not in str(fault.value)
    with pytest.raises(ValueError, match="https"):
        list(download(card_for("file:///etc/passwd"), tmp_path))


def test_missing_weights_are_one_sentence_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for kind in cards():
        began = time.monotonic()
        found = find(kind)
        assert time.monotonic() - began < 1
        assert isinstance(found, Missing) and kind.files[0].name in found.sentence and str(tmp_path) in found.sentence
        assert "embedded" in found.sentence and "\n" not in found.sentence


def test_weights_are_found_in_a_named_folder_and_in_the_usual_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTORCH_PRETRAINED_BIGGAN_CACHE", "HF_HOME", "HF_HUB_CACHE", "STUDIO_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / ".cache"))
    biggan, clip = card("biggan-deep-128"), card("clip-vit-b-32")
    mine = tmp_path / "mine"
    for place in (mine / biggan.name, tmp_path / ".cache/huggingface/hub" / clip.hub / "snapshots" / "abc"):
        place.mkdir(parents=True)
        for file in (biggan if "mine" in place.parts else clip).files:
            (place / file.name).write_bytes(b"x")
    assert isinstance(find(biggan), Missing)
    assert find(biggan, mine) == find(biggan, mine / biggan.name)
    assert isinstance(find(clip), Found)
    monkeypatch.setenv("STUDIO_WEIGHTS", str(mine))
    assert isinstance(find(biggan), Found)
    monkeypatch.delenv("STUDIO_WEIGHTS")
    cache = tmp_path / ".pytorch_pretrained_biggan"
    cache.mkdir()
    for file in biggan.files:
        stem = hashlib.sha256(file.url.encode()).hexdigest()
        (cache / f"{stem}.{'e' * 64}").write_bytes(b"x")
        (cache / f"{stem}.{'e' * 64}.json").write_text("{}")
    found = find(biggan)
    assert isinstance(found, Found) and all(path.suffix != ".json" for path in found.paths)


def test_an_archive_with_another_checksum_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "ViT-B-32.pt").write_bytes(b"not the archive")
    found = find(card("clip-vit-b-32-archive"), tmp_path)
    assert isinstance(found, Missing) and "SHA-256" in found.sentence


def test_cards_are_complete_and_no_checksum_is_invented() -> None:
    for kind in cards():
        assert kind.what and kind.source and kind.licence
        for file in kind.files:
            assert file.url.startswith("https://") and file.limit > 0
            assert file.sha256 == "" or file.sha256 in file.url
    with pytest.raises(ValueError, match="weights must be one of"):
        card("biggan-deep-1024")


def test_tensors_load_from_both_formats_and_nothing_else_does(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).view(2, 3)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.bin")
    torch.save({"a": 3}, tmp_path / "b.bin")
    torch.save({"a": Path("x")}, tmp_path / "c.bin")
    (tmp_path / "d.bin").write_bytes(b"junk")
    (tmp_path / "e.safetensors").write_bytes(b"junk" * 10)
    for name in ("a.safetensors", "a.bin"):
        assert torch.equal(load_tensors(tmp_path / name)["a"], state["a"])
    for name in ("b.bin", "c.bin", "d.bin", "e.safetensors", "none.bin"):
        with pytest.raises(ValueError, match=r"the weights") as fault:
            load_tensors(tmp_path / name)
        assert "\n" not in str(fault.value)
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        load_tensors(tmp_path / "a.bin", limit=10)


def test_a_digest_changes_with_the_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"22")
    assert digest_of((one, two)) == digest_of((one, two)) != digest_of((two, one))
    before = digest_of((one,))
    one.write_bytes(b"333")
    assert digest_of((one,)) != before


def test_assets_are_where_the_studio_is() -> None:
    assert (assets_folder() / "NOTICE.md").is_file()
