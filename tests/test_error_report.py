"""Whole tests of tiny checkpoints and score files, and the pages that come of them."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch

import main
import main_only_pose
import test_models as test_script
from datasets.records import PUBLISHED, load_records, write_list
from errors import InputError
from evaluation import judge, score_models
from options.testing import parse_test_args
from pages import clips
from pages.test_report import render_test_report
from results.score_files import ClipScores, write_scores
from tests.conftest import write_archive, write_dataset, write_frames
from tests.test_html_report import Reader, captions

SMALL = shlex.split(
    "--arch resnet18 --width 8 --input_size 32 --num_segments 4 --pretrained none --epochs 1 "
    "--dataset FRFS --workers 0 --batch-size 2 --device cpu"
)
MODES = {
    "rgb": [*SMALL, "--gsf"],
    "plain": SMALL,
    "early": [*SMALL, "--gsf", "--early_fusion_poses"],
    "late": [*SMALL, "--gsf", "--late_fusion_poses_attention"],
    "pose": shlex.split(
        "--num_segments 4 --epochs 1 --dataset FRFS --workers 0 --batch-size 2 --device cpu"
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "FRFS", clips=(4, 2, 6))
    return folder


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    """Return a function that trains a mode once and returns its checkpoint."""
    made = {}

    def of(mode):
        if mode not in made:
            folder = tmp_path_factory.mktemp(mode)
            script = main_only_pose if mode == "pose" else main
            script.main(
                [*MODES[mode], "--dataset_path", str(data), "--experiment_path", str(folder)]
            )
            made[mode] = next(folder.rglob("best.pth.tar"))
        return str(made[mode])

    return of


def run(output, *line):
    test_script.main([*map(str, line), "--output", str(output), "--workers", "0"])
    return (output / "report.html").read_text()


def well_formed(page):
    reader = Reader(page)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
    return reader


def banners(page):
    return re.findall(r'<p class="verdict bad warned">(.*?)</p>', page)


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        (
            "rgb",
            [
                "Input: frames 00002, 00005, 00008, 00011",
                "GSF gates of layer1.1",
                "layer3.1",
                "Grad-CAM",
            ],
        ),
        ("plain", ["Input", "Grad-CAM"]),
        ("early", ["with the skeleton", "heatmap", "layer1.1", "layer3.1", "Grad-CAM"]),
        ("late", ["with the skeleton", "layer1.1", "layer3.1", "Grad-CAM"]),
        ("pose", ["Input: skeletons", "Joints that speak"]),
    ],
)
def test_every_mode_has_its_pictures(weights, tmp_path, mode, kinds):
    page = run(tmp_path, "--weights", weights(mode))
    well_formed(page)
    found = captions(page)
    # 6 clips: the wrong ones, and the others as the least sure.
    assert len(found) == 6 * len(kinds)
    for part, caption in zip(kinds, found, strict=False):
        assert part in caption
    assert banners(page) == []
    assert "Trained on</th><td>FRFS: train list of 4 clips" in page
    assert "Frames in which somebody was found" in page
    assert "12 frames" in page


def test_pictures_are_as_many_as_asked_for_and_the_page_can_be_left_out(weights, tmp_path):
    page = run(tmp_path, "--weights", weights("rgb"), "--report_clips", "1")
    assert len(captions(page)) == 2 * 4
    page = run(tmp_path, "--weights", weights("rgb"), "--report_clips", "0")
    assert "<img" not in page
    assert "Worst clips" not in page
    (tmp_path / "report.html").unlink()
    test_script.main(["--weights", weights("rgb"), "--output", str(tmp_path), "--no_report"])
    assert not (tmp_path / "report.html").exists()
    assert (tmp_path / "test_report.json").exists()


def test_pictures_stay_within_their_bound(weights, tmp_path, monkeypatch, capsys):
    whole = run(tmp_path, "--weights", weights("rgb"))
    sizes = [len(link) * 3 // 4 for link in well_formed(whole).links]
    monkeypatch.setattr(clips, "MOST_PICTURE_BYTES", sum(sizes) // 2)
    page = run(tmp_path, "--weights", weights("rgb"))
    kept = sum(len(link) * 3 // 4 for link in well_formed(page).links)
    assert 0 < kept <= sum(sizes) // 2 + 4 * len(sizes)
    assert "No pictures: left out" in page
    assert "clips of the report have no pictures: left out" in capsys.readouterr().out


def test_a_frame_that_goes_after_the_test_costs_its_pictures_alone(weights, tmp_path, data):
    root = tmp_path / "FRFS"
    shutil.copytree(data / "FRFS", root)
    line = ["--weights", weights("early"), "--dataset_path", str(tmp_path), "--workers", "0"]
    models, args = score_models(parse_test_args(line))
    outcome = judge(models, args)
    (root / "frames" / "test_3" / "00005.jpg").unlink()
    page, trouble = render_test_report(outcome, args)
    well_formed(page)
    assert len(captions(page)) == 5 * 5
    assert "1 clips of the report have no pictures: " in trouble
    assert "test_3" in trouble
    assert "No pictures: " in page


def test_a_page_that_cannot_be_written_leaves_the_numbers(tmp_path):
    (tmp_path / "report.html").mkdir()
    path = write_odd(tmp_path / "s.npz")
    with pytest.raises(InputError, match="the numbers are in test_report.json"):
        run(tmp_path, "--scores", path)
    assert json.loads((tmp_path / "test_report.json").read_text())["total"] == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--scores", "s.npz", "--report_clips", "-1"], "at least 0"),
        (["--scores", "s.npz", "--dataset", "FRFS"], "needs --dataset_path"),
    ],
)
def test_wrong_options_are_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as ended:
        test_script.main(line)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_models_of_many_views_show_one_and_say_so(weights, tmp_path):
    page = run(tmp_path, "--weights", weights("early"), "--num_clips", "2", "--test_crops", "3")
    assert "2 x 3 views" in page
    assert "Pictures show one of the views: first sampling, centre crop." in page


# ---------------------------------------------------------------- selection


def test_clips_that_chose_the_epoch_are_flagged_in_red(weights, tmp_path, data):
    root = tmp_path / "FRFS"
    shutil.copytree(data / "FRFS", root)
    line = ["--weights", weights("rgb"), "--dataset_path", tmp_path]

    test_script.main([*map(str, line), "--split", "val", "--output", str(tmp_path / "val")])
    assert "the val list" in banners((tmp_path / "val" / "val_report.html").read_text())[0]

    seen = [
        *load_records(root / "val_videofolder.txt"),
        *load_records(root / "test_videofolder.txt"),
    ]
    write_list(root / "test_videofolder.txt", seen[1:])
    page = run(tmp_path / "overlap", *line, "--allow_overlap")
    assert "1 of 7 test clips were in the val list of the checkpoint" in banners(page)[0]
    stored = json.loads((tmp_path / "overlap" / "test_report.json").read_text())
    assert "1 of 7" in stored["selection"][0]

    for split in ("val", "test"):
        write_list(root / f"{split}_videofolder.txt", seen[:2], {"protocol": PUBLISHED})
    page = run(tmp_path / "published", *line)
    assert "these clips chose the epoch" in banners(page)[0]
    assert '<p class="verdict bad">' in page


def test_lists_that_share_clips_are_counted_for_checkpoints_that_do_not_know(
    weights, tmp_path, data
):
    root = tmp_path / "FRFS"
    shutil.copytree(data / "FRFS", root)
    content = torch.load(weights("rgb"), weights_only=True)
    old = tmp_path / "old.pth.tar"
    torch.save({k: v for k, v in content.items() if k != "clips"}, old)
    records = load_records(root / "train_videofolder.txt")
    write_list(root / "test_videofolder.txt", records[:3])
    page = run(tmp_path, "--weights", old, "--dataset_path", tmp_path, "--allow_overlap")
    assert "the train and test lists share 3 clips" in banners(page)[0]


def test_an_ensemble_shows_what_the_model_with_frames_sees(weights, tmp_path):
    pair = [weights("pose"), weights("rgb")]
    page = run(tmp_path, "--weights", *pair, "--compare")
    well_formed(page)
    assert "2 models were scored on the same test clips" in banners(page)[0]
    assert "frames and maps are those of model 2 alone" in page
    assert "GSF gates of layer1.1" in page
    assert "model 2 against model 1" in page
    assert page.count("Trained on</th>") == 2


# ---------------------------------------------------------------- score files, odd lists


def write_odd(path, total=6, num_classes=2, names=None, **changes):
    labels = np.arange(total) % num_classes
    scores = np.random.default_rng(0).normal(size=(total, num_classes))
    classes = names or tuple(f"class {k}" for k in range(num_classes))
    clips = tuple(f"test_{n}" for n in range(total))
    write_scores(path, ClipScores(changes.pop("clips", clips), labels, scores, classes, **changes))
    return path


def test_score_files_have_frames_where_the_data_set_is_named(data, tmp_path):
    path = write_odd(tmp_path / "s.npz")
    page = run(tmp_path, "--scores", path)
    assert "<img" not in page
    assert "score files hold no frames" in page
    page = run(tmp_path, "--scores", path, "--dataset", "FRFS", "--dataset_path", data)
    assert len(captions(page)) == 6
    assert "so there are no maps" in page
    assert "Grad-CAM" not in page
    other = write_odd(tmp_path / "o.npz", clips=tuple(f"other_{n}" for n in range(6)))
    page = run(tmp_path, "--scores", other, "--dataset", "FRFS", "--dataset_path", data)
    assert "clip other_0 of the scores is not in the list of FRFS" in page
    page = run(tmp_path, "--scores", path, "--dataset", "FRFS", "--dataset_path", tmp_path / "no")
    assert "No pictures: " in page


@pytest.mark.parametrize(("total", "num_classes"), [(1, 1), (1, 2), (5, 1), (7, 50), (60, 50)])
def test_few_clips_and_few_or_many_classes(tmp_path, total, num_classes):
    page = run(tmp_path, "--scores", write_odd(tmp_path / "s.csv", total, num_classes))
    well_formed(page)
    assert "nan" not in page.replace("nano", "")
    assert len(re.findall(r'<td class="(?:hit|miss)"', page)) == num_classes**2


def test_names_are_text_whatever_they_hold(tmp_path):
    evil = "<script>alert(1)</script>"
    path = write_odd(
        tmp_path / "s.npz",
        names=(evil, '"><img src=x onerror=alert(1)>'),
        clips=(f"{evil}0", "ü ' \" & {{ 7 * 7 }}", "a\nb", "c\x1b[31m", "e", "\u202eabc"),
        groups=(evil, "", "g", "g", "h", "h"),
    )
    page = run(tmp_path, "--scores", path)
    well_formed(page)
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_a_score_file_of_val_clips_is_flagged_whatever_the_split_says(tmp_path, capsys):
    path = write_odd(tmp_path / "s.npz", split="val")
    test_script.main(["--scores", str(path), "--output", str(tmp_path)])
    page = (tmp_path / "val_report.html").read_text()
    assert "a report on the val list" in banners(page)[0].lower()
    assert "WARNING: a report on the val list" in capsys.readouterr().out


# ---------------------------------------------------------------- keypoints


def test_detection_rates_are_those_of_the_files_and_what_is_broken_is_not_known(
    weights, data, tmp_path
):
    root = tmp_path / "FRFS"
    shutil.copytree(data / "FRFS", root)
    keypoints = np.ones((12, 1, 17, 3), np.float32)
    keypoints[3:] = 0
    write_archive(root / "poses" / "test_0.npz", keypoints)
    write_archive(root / "poses" / "test_1.npz", np.full((12, 1, 17, 3), np.nan, np.float32))
    (root / "poses" / "test_2.npz").unlink()
    line = ["--weights", weights("rgb"), "--dataset_path", str(tmp_path), "--workers", "0"]
    models, args = score_models(parse_test_args(line))
    facts = clips.ClipFacts.of(models[0].tested, models[0].scores.clips)
    np.testing.assert_array_equal(facts.detection, [0.25, np.nan, np.nan, 1, 1, 1])
    page = run(tmp_path, *line)
    assert "Not known of 2 clips" in page


def test_clips_of_many_lengths_without_anybody(weights, tmp_path):
    root = write_dataset(tmp_path / "FRFS", clips=(4, 2, 2), poses=None)
    write_frames(root / "frames" / "one frame", 1)
    (root / "test_videofolder.txt").write_text("one frame 1 1\ntest_0 12 0\n")
    line = ["--weights", weights("early"), "--dataset_path", tmp_path, "--missing_pose", "zero"]
    page = run(tmp_path, *line)
    assert "Frames in which somebody was found" not in page
    assert "2 of 2 clips had no keypoint file" in page
    assert len(captions(page)) == 2 * 5  # the heatmap that was given is empty
