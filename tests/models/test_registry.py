"""Download, cache and hash check, over file:// and a server on the loopback."""

from __future__ import annotations

import resource
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import xxhash

from volsam.errors import VolsamError
from volsam.models import registry
from volsam.models.registry import MODELS, Entry, Remote, cache_folder, fetch
from volsam.segment.ais import AisParameters

CONTENT = b"weights" * 1000
HASH = xxhash.xxh128(CONTENT).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VOLSAM_CACHE", str(folder))
    monkeypatch.setenv("no_proxy", "*")  # the loopback is not asked of a proxy of this machine
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "remote.pt"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def server(source: Path) -> Iterator[str]:
    handler = partial(_Quiet, directory=source.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_download_once(server: str, cache: Path, source: Path) -> None:
    remote = Remote(f"{server}/{source.name}", HASH)
    encoder, decoder = fetch("m", Entry(remote, remote))
    assert decoder is not None
    assert encoder.read_bytes() == decoder.read_bytes() == CONTENT
    source.unlink()
    assert fetch("m", Entry(remote)) == (encoder, None)
    assert files(cache) == ["m.pt", "m_decoder.pt"]


def test_damaged_cache_is_renewed(cache: Path, source: Path) -> None:
    entry = Entry(Remote(source.as_uri(), HASH))
    path, _ = fetch("m", entry)
    path.write_bytes(CONTENT[:-1])
    assert fetch("m", entry)[0].read_bytes() == CONTENT


def test_wrong_hash_leaves_nothing(cache: Path, source: Path) -> None:
    with pytest.raises(VolsamError, match=f"has hash {HASH} and not 00"):
        fetch("m", Entry(Remote(source.as_uri(), "00")))
    assert files(cache) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.pt", "file:///nowhere/x.pt"])
def test_unreachable(cache: Path, url: str) -> None:
    with pytest.raises(VolsamError, match="Cannot download"):
        fetch("m", Entry(Remote(url, HASH)))
    assert files(cache) == []


def test_not_found_on_the_server(server: str, cache: Path) -> None:
    with pytest.raises(VolsamError, match="Cannot download"):
        fetch("m", Entry(Remote(f"{server}/other.pt", HASH)))


@pytest.mark.parametrize("fault", ["silent", "reset", "short"])
def test_network_that_fails_on_the_way(
    cache: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """No disk is to blame for a server that stops in the middle of a file."""
    if fault == "silent":  # a busy machine may need longer for what is not
        monkeypatch.setattr(registry, "_PATIENCE", 0.2)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(2**16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nsome")
                if fault == "silent":
                    over.wait(10)
                elif fault == "reset":
                    hard = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)

        thread = threading.Thread(target=serve)
        thread.start()
        remote = Remote(f"http://127.0.0.1:{listening.getsockname()[1]}/x.pt", HASH)
        words = "has hash" if fault == "short" else "Cannot download .*check the network"
        with pytest.raises(VolsamError, match=words) as caught:
            fetch("m", Entry(remote))
        over.set()
        thread.join()
    assert "VOLSAM_CACHE" not in str(caught.value)
    assert files(cache) == []


def test_disk_without_room(cache: Path, source: Path) -> None:
    with room(100), pytest.raises(VolsamError, match=r"Cannot store .*VOLSAM_CACHE"):
        fetch("m", Entry(Remote(source.as_uri(), HASH)))
    assert files(cache) == []


def test_cache_that_cannot_be_made(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLSAM_CACHE", str(source))
    with pytest.raises(VolsamError, match="VOLSAM_CACHE"):
        fetch("m", Entry(Remote(source.as_uri(), HASH)))


def test_cache_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLSAM_CACHE", raising=False)
    assert cache_folder().name == "volsam"


@pytest.mark.parametrize("name", MODELS)
def test_entries_are_well_formed(name: str) -> None:
    entry = MODELS[name]
    for remote in (entry.encoder, entry.decoder):
        if remote is not None:
            assert remote.url.startswith("https://")
            assert len(bytes.fromhex(remote.xxh128)) == 16
    AisParameters(**entry.ais)  # type: ignore[arg-type]
    assert (entry.decoder is None) == (name in {"vit_b", "vit_l", "vit_h", "vit_t"})
