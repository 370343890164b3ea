"""Downloads over real HTTP from a server on this machine: broken off, resumed, wrong, refused."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from oracle import TINY, save_network

from mast3r_ros.errors import CheckpointError
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.network import PUBLISHED
from mast3r_ros.network.checkpoint import count_parameters, load_model
from mast3r_ros.network.download import BASES, RemoteFile, cache_folder, download_checkpoint, fetch, remote_files

NAME = "MASt3R_Test"


@dataclass
class Publisher:
    """What the server has and how it misbehaves.

    Attributes:
        files: content by path.
        hashes: SHA-256 announced in the redirect to the storage, by path; such files are redirected.
        break_after: bytes of the body after which a connection is closed, None for never.
        announces_size: whether there is a Content-Length.
        requests: path and Range of everything that was asked.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    break_after: int | None = None
    announces_size: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    has = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            has.requests.append((self.path, wanted))
            path = self.path.removeprefix("/storage")
            if path not in has.files:
                self.send_error(404)
                return
            if path == self.path and path in has.hashes:
                self.send_response(302)
                self.send_header("X-Linked-ETag", f'"{has.hashes[path]}"')
                self.send_header("Location", f"/storage{path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._send(has.files[path], wanted)

        def _send(self, data: bytes, wanted: str | None) -> None:
            tag = f'"{hashlib.md5(data).hexdigest()}"'
            start = 0
            if wanted is not None and self.headers.get("If-Range") == tag:
                found = re.fullmatch(r"bytes=(\d+)-", wanted)
                assert found
                start = int(found[1])
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("ETag", tag)
            if has.announces_size:
                self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = len(data) if has.break_after is None else start + has.break_after
            self.wfile.write(data[start:end])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        has.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield has
        server.shutdown()
        thread.join()


DATA = bytes(range(256)) * 20_000


def offered(publisher: Publisher, data: bytes = DATA, at_least: int = 1) -> RemoteFile:
    publisher.files["/x.bin"] = data
    return RemoteFile(f"{publisher.url}/x.bin", "x.bin", at_least)


def test_a_file_arrives_with_progress_and_nothing_else_is_left(publisher: Publisher, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(offered(publisher), tmp_path / "new", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == ["x.bin"]
    assert seen[-1] == (len(DATA), len(DATA)) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_broken_download_resumes_where_it_ended(publisher: Publisher, tmp_path: Path) -> None:
    file = offered(publisher)
    publisher.break_after = 2_000_000
    for received in (2_000_000, 4_000_000):
        with pytest.raises(CheckpointError, match="run again to resume"):
            fetch(file, tmp_path)
        assert (tmp_path / "x.bin.part").stat().st_size == received
        assert not (tmp_path / "x.bin").exists()
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert publisher.requests == [("/x.bin", None), ("/x.bin", "bytes=2000000-"), ("/x.bin", "bytes=4000000-")]
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(publisher: Publisher, tmp_path: Path) -> None:
    file = offered(publisher)
    publisher.break_after = 2_000_000
    with pytest.raises(CheckpointError):
        fetch(file, tmp_path)
    publisher.break_after = None
    offered(publisher, DATA[::-1])
    assert fetch(file, tmp_path).read_bytes() == DATA[::-1]


def test_bytes_of_unknown_origin_are_not_continued(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "x.bin.part").write_bytes(b"something else")
    assert fetch(offered(publisher), tmp_path).read_bytes() == DATA
    assert publisher.requests == [("/x.bin", None)]


def test_the_published_hash_is_checked(publisher: Publisher, tmp_path: Path) -> None:
    file = offered(publisher)
    publisher.hashes["/x.bin"] = hashlib.sha256(DATA).hexdigest()
    assert fetch(file, tmp_path).read_bytes() == DATA
    publisher.hashes["/x.bin"] = "0" * 64
    with pytest.raises(CheckpointError, match="SHA-256"):
        fetch(file, tmp_path / "wrong")
    assert list((tmp_path / "wrong").iterdir()) == []


def test_the_hash_is_remembered_when_resuming(publisher: Publisher, tmp_path: Path) -> None:
    file = offered(publisher)
    publisher.hashes["/x.bin"] = hashlib.sha256(DATA).hexdigest()
    publisher.break_after = 5_000_000
    with pytest.raises(CheckpointError):
        fetch(file, tmp_path)
    part = tmp_path / "x.bin.part"
    part.write_bytes(b"\xff" + part.read_bytes()[1:])  # the disk forgot
    with pytest.raises(CheckpointError, match="SHA-256"):
        fetch(file, tmp_path)


@pytest.mark.parametrize("announced", [True, False])
def test_a_login_page_is_not_taken_for_weights(publisher: Publisher, tmp_path: Path, announced: bool) -> None:
    publisher.announces_size = announced
    with pytest.raises(CheckpointError, match="not the checkpoint"):
        fetch(offered(publisher, b"<html>Welcome to the hotel</html>", at_least=1000), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_unannounced_size_arrives(publisher: Publisher, tmp_path: Path) -> None:
    publisher.announces_size = False
    assert fetch(offered(publisher), tmp_path).read_bytes() == DATA


def test_what_is_not_there(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        fetch(RemoteFile(f"{publisher.url}/y.bin", "y.bin", 1), tmp_path)
    with pytest.raises(CheckpointError, match="check the network"):
        fetch(RemoteFile("http://127.0.0.1:9/x.bin", "x.bin", 1), tmp_path)


def test_published_addresses() -> None:
    mast3r = "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"
    (pth,) = remote_files(mast3r, "naverlabs")
    assert pth.url == f"{BASES['naverlabs']}/MASt3R/{mast3r}.pth" and pth.at_least == 4 * 688_638_856
    config, weights = remote_files("DUSt3R_ViTLarge_BaseDecoder_512_dpt", "huggingface")
    base = "https://huggingface.co/naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt/resolve/main"
    assert (config.url, weights.url) == (f"{base}/config.json", f"{base}/model.safetensors")
    with pytest.raises(CheckpointError, match="MASt3R_ViTLarge"):
        remote_files("MASt3R_Huge", "naverlabs")
    with pytest.raises(CheckpointError, match="naverlabs"):
        remote_files(mast3r, "ftp")


def test_the_cache_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MAST3R_ROS_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "mast3r_ros"
    monkeypatch.setenv("MAST3R_ROS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


#: config.json of TINY as Hugging Face keeps them.
CONFIG = (
    '{"enc_depth": 2, "dec_depth": 3, "enc_embed_dim": 64, "dec_embed_dim": 48, "enc_num_heads": 4, '
    '"dec_num_heads": 4, "pos_embed": "RoPE100", "img_size": [512, 512], "head_type": "catconv", '
    '"output_mode": "pts3d+desc24", "depth_mode": ["exp", -Infinity, Infinity], "conf_mode": ["exp", 1, Infinity], '
    '"two_confs": true, "desc_mode": "norm", "desc_conf_mode": ["exp", 0, Infinity], "landscape_only": false, '
    '"patch_embed_cls": "PatchEmbedDust3R"}'
)


@pytest.fixture
def published(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A small network, published as the large ones are."""
    monkeypatch.setitem(PUBLISHED, NAME, TINY)
    weights = save_network(random_network(TINY, seed=8), tmp_path / "origin.safetensors").read_bytes()
    folder = f"/{NAME}/resolve/main"
    publisher.files = {f"{folder}/config.json": CONFIG.encode(), f"{folder}/model.safetensors": weights}
    publisher.hashes[f"{folder}/model.safetensors"] = hashlib.sha256(weights).hexdigest()
    return publisher


def test_a_checkpoint_is_fetched_once_and_loads(published: Publisher, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    info = download_checkpoint(NAME, folder, mirror=published.url)
    assert (info.architecture, info.layout) == (NAME, "huggingface")
    assert info.sha256 == published.hashes[f"/{NAME}/resolve/main/model.safetensors"]
    loaded = load_model(folder).state_dict()
    expected = random_network(TINY, seed=8).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in expected.items())
    asked = len(published.requests)
    download_checkpoint(NAME, folder, mirror=published.url)
    assert len(published.requests) == asked


def test_a_file_that_is_no_checkpoint_does_not_stay(published: Publisher, tmp_path: Path) -> None:
    path = f"/{NAME}/resolve/main/model.safetensors"
    published.files[path] = bytes(4 * sum(count_parameters(TINY).values()) + 1)
    del published.hashes[path]
    with pytest.raises(CheckpointError, match="no checkpoint and was deleted"):
        download_checkpoint(NAME, tmp_path / "cache", mirror=published.url)
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_network_under_the_name_does_not_stay(published: Publisher, tmp_path: Path) -> None:
    path = f"/{NAME}/resolve/main/config.json"
    published.files[path] = CONFIG.replace('["exp", 0, Infinity]', '["exp", 1, Infinity]').encode()
    with pytest.raises(CheckpointError, match="another network"):
        download_checkpoint(NAME, tmp_path / "cache", mirror=published.url)
    assert list((tmp_path / "cache").iterdir()) == []
