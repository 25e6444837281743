"""Published weights by name: fetched once, whole or not at all, compared, or one line."""

import hashlib
import io
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from errors import InputError
from models import downloads
from models.downloads import resolve_weights, weights_folder
from models.skeleton.catalogue import (
    CATALOGUE,
    catalogue_table,
    find_published,
    nearest_names,
)
from models.skeleton.published import TITLES
from tests.clocks import soon

NAME = "stgcnpp/ntu60-xsub-2d-joint"


def weights() -> bytes:
    out = io.BytesIO()
    torch.save({"state_dict": {"w": torch.zeros(350_000)}}, out)
    return out.getvalue()


DATA = weights()
PAGE = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"


class Answers(BaseHTTPRequestHandler):
    """Gives DATA, as the path says: whole, cut, slow, never, not, or something else."""

    asked: list[str]
    over: threading.Event

    def do_GET(self) -> None:  # noqa: N802 - its name in http.server
        type(self).asked.append(self.path)
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path in ("/page", "/empty"):
            self.end_headers()
            self.wfile.write(PAGE if self.path == "/page" else b"")
            return
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        if self.path == "/cut":
            self.wfile.write(DATA[:1000])
            return
        for start in range(0, len(DATA), 100_000):
            if self.path in ("/slow", "/stalls") and start:
                self.over.wait(0.2 if self.path == "/slow" else 30)
            try:
                self.wfile.write(DATA[start : start + 100_000])
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serve on 127.0.0.1; return a function that makes the catalogue point there."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "*")
    handler = type("Handler", (Answers,), {"asked": [], "over": threading.Event()})
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.daemon_threads = False  # their sockets are closed before the next test
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def point(path: str = "/whole", sha256: str | None = None, name: str = NAME):
        digits = hashlib.sha256(DATA).hexdigest()[:8] if sha256 is None else sha256
        url = f"http://127.0.0.1:{served.server_port}{path}"
        entry = replace(CATALOGUE[name], url=url, sha256=digits)
        monkeypatch.setitem(CATALOGUE, name, entry)
        return entry, handler.asked

    yield point
    handler.over.set()
    served.shutdown()
    thread.join()
    served.server_close()


def message_of(*arguments, **limits) -> str:
    with pytest.raises(InputError) as caught:
        resolve_weights(*arguments, **limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left_over() -> list[str]:
    return sorted(path.name for path in weights_folder().glob("*"))


# ---------------------------------------------------------------- fetching


def test_weights_are_fetched_once_and_compared(server, capsys):
    entry, asked = server()
    path = resolve_weights(NAME)
    assert path == weights_folder() / entry.file_name
    assert path.read_bytes() == DATA
    assert f"downloaded {NAME} (MMAction2) to {path}, SHA-256 compared" in capsys.readouterr().out
    assert resolve_weights(Path(NAME)) == path
    assert asked == ["/whole"]
    assert left_over() == [entry.file_name]


def test_without_a_published_sum_the_user_gets_that_of_the_file(server, capsys):
    name = f"pyskl/{NAME}"
    server("/unsized", "", name)
    path = resolve_weights(name)
    assert path.name == "pyskl-stgcnpp-ntu60-xsub-2d-joint.pth"
    out = capsys.readouterr().out
    assert "none is published to compare" in out
    assert hashlib.sha256(DATA).hexdigest() in out


@pytest.mark.parametrize(
    ("path", "sha256", "reason"),
    [
        ("/absent", None, "404"),
        ("/cut", None, f"1,000 of {len(DATA):,} bytes came"),
        ("/page", "", "what came is no checkpoint, but a web page"),
        ("/empty", "", "what came is no checkpoint, or damaged (it is empty)"),
        ("/whole", "00000000", "its SHA-256 begins with"),
    ],
)
def test_what_is_not_whole_or_another_file_is_not_kept(path, sha256, reason, server):
    entry, _ = server(path, sha256)
    message = message_of(NAME)
    assert reason in message
    assert entry.url in message
    assert f"put the file there by hand, named {entry.file_name}" in message
    assert left_over() == []


def test_a_server_that_is_silent_or_slow_is_not_waited_for(server):
    server("/stalls")
    with soon():
        assert "timed out" in message_of(NAME, seconds=0.3)
        server("/slow")
        assert "bytes came in time" in message_of(NAME, most_seconds=0.3)
    assert left_over() == []


def test_nobody_answers(server):
    entry, _ = server()
    CATALOGUE[NAME] = replace(entry, url="http://127.0.0.1:9/x.pth")
    message = message_of(NAME)
    assert "cannot be downloaded from http://127.0.0.1:9/x.pth" in message
    assert str(weights_folder()) in message


def test_several_processes_may_want_the_same_weights(server):
    server("/slow")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(resolve_weights(NAME))) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0].read_bytes() == DATA
    assert len(left_over()) == 1


def test_a_file_that_was_damaged_meanwhile_is_named(server):
    server()
    path = resolve_weights(NAME)
    path.write_bytes(DATA[:-1])
    message = message_of(NAME)
    assert f"{path} is damaged" in message
    assert "delete the file" in message


def test_a_file_put_there_by_hand_is_taken(server):
    entry, asked = server()
    weights_folder().mkdir(parents=True)
    (weights_folder() / entry.file_name).write_bytes(DATA)
    assert resolve_weights(entry.name) == weights_folder() / entry.file_name
    assert resolve_weights(entry.file_name).read_bytes() == DATA
    assert not asked


def test_a_folder_that_cannot_be_made_is_one_line(server, monkeypatch, tmp_path):
    server()
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "file"))
    assert "cannot be downloaded" in message_of(NAME)


# ---------------------------------------------------------------- names


def test_a_file_is_itself_whatever_it_is_called(server, tmp_path, monkeypatch):
    _, asked = server()
    monkeypatch.chdir(tmp_path)
    for name in ("my.weights", NAME):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"x")
        assert resolve_weights(name) == Path(name)
    assert not asked


def test_paths_where_nothing_is_stay_paths():
    for name in ("run/best.pth.tar", "x.safetensors", "a.pt"):
        assert resolve_weights(name) == Path(name)


@pytest.mark.parametrize("text", ["stgcnpp/ntu60-xsub-joint", "STGCN++", "", "x\ny", "a" * 5000])
def test_unknown_names_are_refused_with_the_nearest(text, monkeypatch):
    monkeypatch.setattr(downloads, "_fetch", None)
    if text == "":
        assert resolve_weights(text) == Path()  # the folder that one is in
        return
    message = message_of(text)
    assert "neither a file nor the name of published weights" in message
    assert "stgcn" in message or len(text) == 5000 or "\n" in text
    assert len(message) < 600


def test_urls_are_known_by_the_catalogue_alone(server):
    entry, asked = server()
    assert resolve_weights(entry.url).read_bytes() == DATA
    assert "neither a file nor" in message_of(entry.url + "x.pth")
    assert asked == ["/whole"]


def test_names_find_what_was_published():
    entry = find_published(NAME)
    assert entry is CATALOGUE[NAME]
    assert find_published(entry.file_name) is entry
    assert find_published(entry.url) is entry
    assert find_published(entry.url.replace("https", "http")) is entry
    assert find_published("stgcnpp") is None
    assert nearest_names("stgcnpp/ntu60-xsub-2d-joints")[0] == NAME


def test_the_catalogue_is_in_order():
    assert len({entry.url for entry in CATALOGUE.values()}) == len(CATALOGUE)
    assert len({entry.file_name for entry in CATALOGUE.values()}) == len(CATALOGUE)
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert entry.url.startswith("https://download.openmmlab.com/mmaction/")
        assert entry.model in TITLES
        assert entry.accuracy is None or 40 < entry.accuracy < 100
        is_ours = entry.toolbox == "MMAction2"
        assert len(entry.sha256) == (8 if is_ours else 0)
        assert all(digit in "0123456789abcdef" for digit in entry.sha256)
        assert entry.file_name.endswith(f"-{entry.sha256}.pth" if is_ours else ".pth")
    rows = catalogue_table()
    assert len(rows) == len(CATALOGUE)
    assert len({tuple(row) for row in rows}) == 1


def test_a_published_url_is_what_the_rules_make_of_a_row():
    config = "stgcnpp_8xb16-joint-motion-u100-80e_ntu60-xsub-keypoint-3d"
    entry = CATALOGUE["stgcnpp/ntu60-xsub-3d-joint-motion"]
    assert entry.url == (
        f"https://download.openmmlab.com/mmaction/v1.0/skeleton/stgcnpp/{config}/"
        f"{config}_20221230-650de5cc.pth"
    )
    assert (entry.accuracy, entry.stream) == (86.67, "joint_motion")
    config = "ctrgcn_8xb16-joint-u100-80e_ntu60-xsub-keypoint-2d"
    assert CATALOGUE["ctrgcn/ntu60-xsub-2d-joint"].url == (
        f"https://download.openmmlab.com/mmaction/v1.0/projects/ctrgcn/{config}/"
        f"{config}_20230308-7aba454e.pth"
    )
    pyskl = "https://download.openmmlab.com/mmaction/pyskl/ckpt"
    for name, file in (
        ("stgcnpp/ntu60-xsub-2d-bone-motion", "stgcnpp/stgcnpp_ntu60_xsub_hrnet/bm.pth"),
        ("stgcn/ntu60-xview-3d-joint", "stgcn/stgcn_pyskl_ntu60_xview_3dkp/j.pth"),
        ("stgcn-vanilla/ntu60-xview-3d-joint", "stgcn/stgcn_vanilla_ntu60_xview_3dkp/j.pth"),
        ("ctrgcn/ntu120-xset-2d-bone", "ctrgcn/ctrgcn_pyskl_ntu120_xset_hrnet/b.pth"),
    ):
        assert CATALOGUE[f"pyskl/{name}"].url == f"{pyskl}/{file}"
