"""tools/export.py: from a checkpoint to a folder that says the same, or to one clear line."""

import json
import os
import runpy
from pathlib import Path

import pytest
import torch
import yaml
from scipy.stats import binomtest

from deployment import onnx_export
from deployment.networks import load_network
from deployment.onnx_export import example_batch
from errors import InputError
from tests.making_models import config_of, model_of, write_checkpoint

CPU = torch.device("cpu")
TOOL = Path(__file__).resolve().parent.parent / "tools" / "export.py"
FILES = ["README.md", "config.json", "model.onnx", "model.safetensors"]


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(TOOL), run_name="loaded")["main"]


@pytest.fixture
def run(tmp_path):
    """Return the checkpoint of a run."""
    path = write_checkpoint(tmp_path / "20260101_fast" / "best.pth.tar", "pose")
    (path.parent / "args.json").write_text("{}")
    return path


def refusal(main, *options) -> str:
    with pytest.raises(InputError) as caught:
        main(list(map(str, options)))
    text = str(caught.value)
    assert "\n" not in text
    return text


def write_report(folder: Path, **changes) -> Path:
    report = {
        "weights": "best.pth.tar",
        "split": "test",
        "classes": ["stands", "falls"],
        "protocol": "",
        "total": 40,
        "correct": 31,
        "majority": 0.5,
        "macro_f1": 0.77,
        "options": {"dataset": "FRFS"},
    }
    path = folder / "test_report.json"
    path.write_text(json.dumps(report | changes))
    return path


# ---------------------------------------------------------------- a folder


def test_a_checkpoint_becomes_a_folder_checked_on_the_clips_of_its_data_set(
    main, tmp_path, dataset, capsys
):
    args = {"dataset": "FRFS", "dataset_path": str(dataset.parent), "missing_pose": "error"}
    weights = write_checkpoint(tmp_path / "run" / "best.pth.tar", "pose", args=args)
    folder = main(["--weights", str(weights), "--clips", "5"])
    assert folder == tmp_path / "run" / "model"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    said = capsys.readouterr().out
    # The list has two clips.
    assert "2 clips of the test list of FRFS" in said
    assert "2 of 2 labels equal" in said
    assert "OK: all within 0.0001" in said
    assert "WARNING" not in said
    networks = [load_network(path, CPU) for path in (weights, folder, folder / "model.onnx")]
    batch = example_batch(networks[0].config, 7, seed=9)
    for network in networks:
        assert network.config == networks[0].config
        assert torch.allclose(network.logits(batch), networks[0].logits(batch), atol=1e-5)
    card = (folder / "README.md").read_text("utf-8")
    assert "2 clips of the test list of FRFS" in card
    assert str(tmp_path) not in card


def test_a_model_of_a_fold_is_checked_on_the_clips_that_it_did_not_see(
    main, tmp_path, dataset, capsys
):
    args = {"dataset": "FRFS", "dataset_path": str(dataset.parent), "missing_pose": "error"}
    args |= {"fold": "2/2", "fold_seed": None, "fold_val": 0}
    weights = write_checkpoint(tmp_path / "run" / "best.pth.tar", "pose", args=args)
    main(["--weights", str(weights), "--formats", "safetensors"])
    said = capsys.readouterr().out
    assert "fold 2 of 2" in said
    assert "clips of the test list of FRFS" in said
    assert "OK: all within 0.0001" in said


def test_without_clips_it_says_that_it_used_noise(main, run, capsys):
    folder = main(["--weights", str(run), "--clips", "5"])
    said = capsys.readouterr().out
    assert "WARNING: no real clips, the check uses random inputs" in said
    assert "5 random inputs, not real clips" in said
    assert "5 random inputs, not real clips" in (folder / "README.md").read_text("utf-8")


def test_a_data_set_that_has_gone_is_no_error_unless_it_is_named(main, tmp_path, capsys):
    args = {"dataset": "FRFS", "dataset_path": str(tmp_path / "gone"), "missing_pose": "error"}
    weights = write_checkpoint(tmp_path / "best.pth.tar", "pose", args=args)
    main(["--weights", str(weights), "--formats", "safetensors"])
    assert "gone" in capsys.readouterr().out
    assert "is not there" in refusal(
        main, "--weights", weights, "--dataset", "FRFS", "--dataset_path", tmp_path, "--overwrite"
    )


def test_one_format_alone(main, run, tmp_path):
    main(["--weights", str(run), "--formats", "onnx", "--output", str(tmp_path / "o")])
    assert not (tmp_path / "o" / "model.safetensors").exists()
    assert load_network(tmp_path / "o", CPU).source == tmp_path / "o" / "model.onnx"
    assert "THIS_FOLDER/model.onnx" in (tmp_path / "o" / "README.md").read_text("utf-8")
    main(["--weights", str(run), "--formats", "safetensors", "--output", str(tmp_path / "s")])
    assert not (tmp_path / "s" / "model.onnx").exists()
    assert "onnxruntime" not in (tmp_path / "s" / "README.md").read_text("utf-8").split("## Use")[1]


def test_a_folder_can_be_exported_again(main, run, tmp_path):
    main(["--weights", str(run), "--formats", "safetensors", "--output", str(tmp_path / "s")])
    main(["--weights", str(tmp_path / "s"), "--output", str(tmp_path / "t"), "--clips", "3"])
    assert (tmp_path / "t" / "model.onnx").is_file()
    assert "--output" in refusal(main, "--weights", tmp_path / "s")
    assert "cannot be exported again" in refusal(
        main, "--weights", tmp_path / "t" / "model.onnx", "--output", tmp_path / "u"
    )


def test_an_existing_folder_stays_unless_told(main, run, tmp_path):
    options = ["--weights", str(run), "--formats", "safetensors"]
    main(options)
    assert "--overwrite" in refusal(main, *options)
    main([*options, "--overwrite"])


# ---------------------------------------------------------------- disagreement


def test_a_file_that_says_something_else_is_not_left(main, run, monkeypatch):
    def export_other(model, config, path):
        onnx_export.export_onnx(model_of(config, seed=1), config, path)

    monkeypatch.setitem(main.__globals__, "export_onnx", export_other)
    text = refusal(main, "--weights", run)
    assert text.startswith("model.onnx does not say what the model says")
    assert "nothing was written" in text
    assert sorted(path.name for path in run.parent.iterdir()) == ["args.json", "best.pth.tar"]


def test_an_impossible_tolerance_is_not_reached(main, run):
    assert "--tolerance 1e-30" in refusal(main, "--weights", run, "--tolerance", "1e-30")
    assert not (run.parent / "model").exists()


# ---------------------------------------------------------------- weights that say nothing


def foreign(tmp_path) -> Path:
    """Write a state dict under our names, as one without options."""
    path = tmp_path / "published.pth"
    torch.save({"epoch": 3, "state_dict": model_of(config_of("rgb")).state_dict()}, path)
    return path


NETWORK = ["--arch", "resnet18", "--width", "4", "--num_segments", "3", "--input_size", "32"]


def test_foreign_weights_become_a_folder_when_they_are_described(main, tmp_path):
    path = foreign(tmp_path)
    options = ["--weights", str(path), *NETWORK, "--class_names", "a", "b"]
    folder = main([*options, "--formats", "safetensors", "--output", str(tmp_path / "m")])
    network = load_network(folder, CPU)
    batch = example_batch(network.config, 3)
    with torch.inference_mode():
        assert torch.equal(network.logits(batch), model_of(config_of("rgb"))(batch))
    assert network.config.classes == ("a", "b")
    assert network.config.data == {}
    assert "do not say what they were trained on" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (NETWORK, "--class_names"),
        ([*NETWORK, "--class_names", "a", "b", "--num_channels", "4"], "--num_channels 4"),
    ],
)
def test_foreign_weights_without_a_description(main, tmp_path, options, text, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--weights", str(foreign(tmp_path)), *options])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_foreign_weights_that_do_not_fit(main, tmp_path):
    path = foreign(tmp_path)
    text = refusal(main, "--weights", path, "--class_names", "a", "b", "c", *NETWORK)
    assert "2-class resnet18" in text
    text = refusal(main, "--weights", path, "--class_names", "a", "b", *NETWORK, "--gsf")
    assert "no --gsf" in text


@pytest.mark.parametrize(
    "options", [["--num_segments", "4"], ["--gsf"], ["--class_names", "a", "b"]]
)
def test_options_that_contradict_the_checkpoint(main, run, options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--weights", str(run), *options])
    assert caught.value.code == 2
    assert "drop the option" in capsys.readouterr().err


# ---------------------------------------------------------------- the card


def front_matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])


def test_the_card_quotes_the_test_with_n_and_interval(main, run):
    write_report(run.parent)
    folder = main(["--weights", str(run), "--formats", "safetensors", "--license", "cc-by-4.0"])
    card = (folder / "README.md").read_text("utf-8")
    assert "n = 40 clips" in card
    assert "31 of 40, 77.5%" in card
    interval = binomtest(31, 40).proportion_ci(method="wilson")
    assert f"{interval.low:.1%} to {interval.high:.1%}" in card
    assert "optimistic" not in card
    assert "a" * 64 in card
    assert "cc-by-4.0" in card
    front = front_matter(folder)
    assert front["license"] == "cc-by-4.0"
    assert front["pipeline_tag"] == "video-classification"
    (entry,) = front["model-index"]
    assert entry["name"] == "20260101_fast"
    assert entry["results"][0]["metrics"][0]["value"] == 0.775


def test_a_test_on_the_clips_of_the_selection_is_flagged(main, run):
    write_report(run.parent, protocol="published", notes=["the first 40 of 99 clips"])
    folder = main(["--weights", str(run), "--formats", "safetensors"])
    card = (folder / "README.md").read_text("utf-8")
    assert "**These numbers are no estimate for other videos: selected on the test list" in card
    assert "Note: the first 40 of 99 clips." in card
    assert (
        "optimistic" in front_matter(folder)["model-index"][0]["results"][0]["metrics"][0]["name"]
    )


def test_an_interval_over_groups_goes_first(main, run):
    intervals = {"unit": "group", "units": 5, "values": {"accuracy": [0.4, 0.9]}}
    write_report(run.parent, intervals=intervals)
    folder = main(["--weights", str(run), "--formats", "safetensors"])
    card = (folder / "README.md").read_text("utf-8")
    assert "95 % interval (over 5 groups) | 40.0% to 90.0%" in card


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"total": 0, "correct": 0}, "no counts"),
        ({"correct": 41}, "no counts"),
        ({"total": "40"}, "no counts"),
        ({"classes": ["a", "b"]}, "other classes"),
        ({"weights": ["a", "b"]}, "ensemble"),
    ],
)
def test_reports_of_something_else_are_not_quoted(main, run, changes, text, capsys):
    path = write_report(run.parent, **changes)
    folder = main(["--weights", str(run), "--formats", "safetensors"])
    assert text in capsys.readouterr().out
    assert "how good it is, is not known" in (folder / "README.md").read_text("utf-8")
    assert text in refusal(main, "--weights", run, "--report", path, "--overwrite")


def test_a_report_older_than_the_weights_is_left_out(main, run, capsys):
    path = write_report(run.parent)
    os.utime(path, (1, 1))
    folder = main(["--weights", str(run), "--formats", "safetensors"])
    assert "older than the weights" in capsys.readouterr().out
    assert "not known" in (folder / "README.md").read_text("utf-8")
    main(["--weights", str(run), "--report", str(path), "--overwrite", "--formats", "safetensors"])
    assert "31 of 40" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_report_is_refused(main, run, tmp_path, content):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    assert "no report" in refusal(main, "--weights", run, "--report", path)


def test_names_of_others_do_nothing_in_a_card(main, tmp_path):
    classes = ("<script>alert(1)</script>", "a|b`c`", "**x** [y](javascript:z)", "# h\n---\nz: 1")
    weights = write_checkpoint(tmp_path / "b.pth.tar", "pose", classes=classes)
    name = 'x"\n---\nlicense: mit\n<img src=x>'
    folder = main(["--weights", str(weights), "--name", name, "--formats", "safetensors"])
    text = (folder / "README.md").read_text("utf-8")
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body
    assert "<img" not in body
    assert "[y](" not in body
    assert "\n---" not in body.replace("|---|---|---|", "")
    front = front_matter(folder)
    assert "license" not in front


# ---------------------------------------------------------------- the hub


def test_the_folder_is_sent_and_stays_when_that_fails(main, run, monkeypatch, capsys):
    calls = []

    def push(*args, **options):
        calls.append((args, options))
        if len(calls) > 1:
            raise InputError("the hub is closed")
        return "https://hub/me/gsp"

    monkeypatch.setitem(main.__globals__, "push_folder", push)
    options = ["--weights", run, "--formats", "safetensors", "--push_to_hub", "me/gsp"]
    folder = main([*map(str, options), "--private"])
    sent = ["model.safetensors", "config.json", "README.md"]
    assert calls == [((folder, sent, "me/gsp"), {"private": True})]
    assert "sent to https://hub/me/gsp" in capsys.readouterr().out
    assert "closed" in refusal(main, *options, "--overwrite")
    assert sorted(path.name for path in folder.iterdir()) == sorted(sent)


@pytest.mark.parametrize(
    "options",
    [
        ["--push_to_hub", "gsp"],
        ["--push_to_hub", "../../etc"],
        ["--push_to_hub", "https://evil/x"],
        ["--private"],
        ["--license", "MIT licence"],
        ["--name", " "],
        ["--formats", "tflite"],
        ["--clips", "0"],
        ["--tolerance", "-1"],
    ],
)
def test_wrong_options_end_at_once(main, run, options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--weights", str(run), *options])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (run.parent / "model").exists()


def test_a_data_set_needs_its_folder(main, run, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--weights", str(run), "--dataset", "mine"])
    assert end.value.code == 2
    assert "--dataset mine needs --dataset_path" in capsys.readouterr().err
