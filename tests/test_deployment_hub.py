"""Sending to the hub of Hugging Face, against a client that only notes what it is asked."""

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from deployment import hub
from errors import InputError

FILES = ("model.safetensors", "config.json", "README.md")


class FakeHub:
    """Stands for `HfApi`; `fault` is raised by the call `at`."""

    def __init__(self, private=True, fault=None, at="create_repo"):
        self.private, self.fault, self.at, self.calls = private, fault, at, []

    def _call(self, name, *args, **options):
        self.calls.append((name, args, options))
        if self.fault is not None and self.at == name:
            raise self.fault

    def create_repo(self, *args, **options):
        self._call("create_repo", *args, **options)
        return f"https://hub/{args[0]}"

    def model_info(self, *args):
        self._call("model_info", *args)
        return SimpleNamespace(private=self.private)

    def upload_folder(self, **options):
        self._call("upload_folder", **options)


def push(monkeypatch, fake, private=False):
    monkeypatch.setattr(hub, "build_api", lambda: fake)
    return hub.push_folder(Path("models") / "m", FILES, "me/gsp", private=private)


@pytest.mark.parametrize("private", [True, False])
def test_the_files_are_sent_and_nothing_else(monkeypatch, private):
    fake = FakeHub(private=private)
    assert push(monkeypatch, fake, private) == "https://hub/me/gsp"
    (_, args, options), _, (_, _, sent) = fake.calls
    assert args == ("me/gsp",)
    assert options["private"] is private
    assert Path(sent["folder_path"]) == Path("models") / "m"
    assert sent["allow_patterns"] == list(FILES)


def test_nothing_private_goes_to_a_public_repository(monkeypatch):
    fake = FakeHub(private=False)
    with pytest.raises(InputError, match="public"):
        push(monkeypatch, fake, private=True)
    assert [name for name, *_ in fake.calls] == ["create_repo", "model_info"]


def refused(status):
    error = RuntimeError("some client error.\nlong advice")
    error.response = SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize(
    ("fault", "at", "text"),
    [
        (ConnectionError("no route\nto host"), "create_repo", "ConnectionError: no route"),
        (refused(401), "create_repo", "HF_TOKEN"),
        (refused(403), "upload_folder", "HF_TOKEN"),
        (refused(500), "upload_folder", "some client error."),
        (TimeoutError(), "model_info", "TimeoutError"),
    ],
)
def test_a_hub_that_refuses_is_one_line(monkeypatch, fault, at, text):
    with pytest.raises(InputError) as caught:
        push(monkeypatch, FakeHub(fault=fault, at=at))
    told = str(caught.value)
    assert text in told
    assert "stays" in told
    assert "\n" not in told


def test_the_real_client_says_that_it_is_offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="me/gsp"):
        hub.push_folder(Path("m"), FILES, "me/gsp", private=False)
