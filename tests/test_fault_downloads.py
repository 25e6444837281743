"""RELIABILITY 28: no network, garbage of a proxy, wrong hash, downloads that break off."""

import gc
import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

import main
import test_models as test_script
from errors import InputError
from models import pose_weights, weights
from tests.small_runs import RGB, command, run_of

# What urllib keeps of an answer that it refuses is closed by the garbage collector.
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

NAME = "resnet18-f37072fd.pth"
OK = b"HTTP/1.1 200 OK\r\n"
BODY = bytes(range(256)) * 4
DIGEST = hashlib.sha256(BODY).hexdigest()
ANSWERS = {
    "nothing": b"",
    "garbage": b"\x00\xff\x10 garbage\r\n\r\n",
    "a page to log in": OK + b"Content-Length: 20\r\n\r\n<html>log in</html> ",
    "cut": OK + b"Content-Length: 5000\r\n\r\n" + BODY,
    "cut within a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + BODY[:500],
    "chunks that are none": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nfoo",
    "a length that is none": OK + b"Content-Length: abc\r\n\r\n" + BODY,
    "a negative length": OK + b"Content-Length: -5\r\n\r\n" + BODY,
    "an endless header": OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": OK + b"a: b\r\n" * 300 + b"\r\n",
    "an error": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    "a loop": f"HTTP/1.1 302 Found\r\nLocation: /{NAME}\r\nContent-Length: 0\r\n\r\n".encode(),
    "a file of ours": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
}


@pytest.fixture
def collected():
    yield
    gc.collect()


@contextmanager
def serving(answer: bytes | None) -> Iterator[str]:
    """Answer every request on 127.0.0.1 with these bytes (None: never) and give the address."""
    server = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            if answer is None:
                kept.append(connection)
                continue
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/{NAME}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)
        for connection in kept:
            connection.close()


def complaint(act) -> str:
    with pytest.raises(InputError) as caught:
        act()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("case", ANSWERS)
def test_estimator_weights_come_whole_or_not_at_all(case, tmp_path):
    path = tmp_path / "w.pth"
    with serving(ANSWERS[case]) as url:
        message = complaint(
            lambda: pose_weights.find_weights(path, "a model", "", url=url, sha256=DIGEST[:8])
        )
    assert str(path) in message
    assert "--pose_weights" in message
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(pose_weights, "_SECONDS", 0.3)
    with serving(None) as url:
        message = complaint(
            lambda: pose_weights.find_weights(tmp_path / "w.pth", "a model", "", url=url)
        )
    assert "timed out" in message
    assert list(tmp_path.iterdir()) == []


def test_a_good_answer_is_taken(tmp_path):
    answer = OK + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    with serving(answer) as url:
        found = pose_weights.find_weights(
            tmp_path / "w.pth", "a model", "", url=url, sha256=DIGEST[:8]
        )
    assert found == DIGEST
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("case", ANSWERS)
def test_imagenet_weights_come_whole_or_not_at_all(case, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with serving(ANSWERS[case]) as url:
        known = {"IMAGENET1K_V1": SimpleNamespace(url=url)}
        monkeypatch.setattr(weights, "get_model_weights", lambda arch: known)
        message = complaint(lambda: weights.backbone_weights("resnet18", "imagenet", 64))
    assert NAME in message
    assert url in message
    assert "--pretrained none" in message
    assert "are damaged" not in message  # there is no file that could be deleted
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert capfd.readouterr() == ("", "")


def test_training_and_testing_need_no_network(dataset, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("the network is not for tests")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    main.main(command(dataset, tmp_path, *RGB, "--early_fusion_poses", epochs=1))
    best = run_of(tmp_path) / "best.pth.tar"
    assert test_script.main(["--weights", str(best), "--workers", "0"]).total == 2
