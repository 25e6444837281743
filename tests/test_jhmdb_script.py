"""benchmarks/jhmdb.py: its annotations, its runs as child processes, its tables."""

import json
from pathlib import Path

import numpy as np
import pytest

import opts
from benchmarks import jhmdb, runs
from benchmarks.runs import Run, run_all, run_program
from campaigns import children
from datasets.annotations.annotation_set import open_annotations
from datasets.annotations.exporting import Annotation, write_annotations
from errors import InputError
from ops.skeleton import COCO17, JHMDB15
from options.testing import parse_test_args
from results.score_files import ClipScores, read_scores
from tests.making_annotations import annotation, write

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "jhmdb" / "jhmdb14_split1.pkl"

TRAIN = """
import sys
from pathlib import Path
argv = sys.argv[1:]
value = lambda name: argv[argv.index(name) + 1]
place = Path(value("--experiment_path"))
if (place / "fail").exists():
    sys.exit("error: no space left")
run = place / "experiments" / "d" / "a" / "1_run"
run.mkdir(parents=True)
(run / "last.pth.tar").write_text(value("--seed"))
(run / "finished.json").write_text("{}")
with (place / "trained.txt").open("a") as file:
    file.write("x")
"""
TEST = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {root!r})
from results.score_files import ClipScores, write_scores
argv = sys.argv[1:]
value = lambda name: argv[argv.index(name) + 1]
seed = int(Path(value("--weights")).read_text())
output = Path(value("--output"))
if (output / "fail_test").exists():
    sys.exit("error: no such list")
scores = np.eye(2)[[0, 1, seed % 2, 0]]
write_scores(output / "scores_test.npz", ClipScores(
    ("a", "b", "c", "d"), np.array([0, 1, 0, 1]), scores, ("x", "y"), "probabilities"))
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put programs that take no time in the place of ours."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "main_only_pose.py").write_text(TRAIN, encoding="utf-8")
    text = TEST.format(root=str(runs.Path(__file__).resolve().parents[1]))
    (folder / "test_models.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(children, "ROOT", folder)


def make_run(folder: Path, seed: int = 0, *more: str) -> Run:
    train = ("main_only_pose.py", "--lr", "0.1", *more)
    return Run("net", seed, folder / f"seed{seed}", train, ("--softmax",), "last.pth.tar")


# ---------------------------------------------------------------- runs


def test_runs_are_trained_tested_and_not_run_again(tmp_path, programs):
    found = [make_run(tmp_path, seed) for seed in range(3)]
    told = []
    run_all(found, 2, told.append)
    rights = [int((r.scores().scores.argmax(1) == r.scores().labels).sum()) for r in found]
    assert rights == [3, 2, 3]
    assert told[0] == "3 runs, 0 done before"
    assert sorted(told[1:])[0].startswith("net, seed 0: 3 of 4 right (75.0%); ")
    assert told[-1].endswith("; 0 runs left")
    run_all(found, 2, told.append)
    assert told[-1] == "3 runs, 3 done before"
    assert [(run.folder / "trained.txt").read_text() for run in found] == ["x"] * 3


def test_a_test_that_failed_is_done_again_without_the_training(tmp_path, programs):
    run = make_run(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "fail_test").touch()
    with pytest.raises(InputError, match="1 of 1 runs failed, such as net, seed 0: no such list"):
        run_all([run], 1, lambda line: None)
    assert run.scores() is None
    (run.folder / "fail_test").unlink()
    run_all([run], 1, lambda line: None)
    assert len(run.scores()) == 4
    assert (run.folder / "trained.txt").read_text() == "x"


def test_one_failure_does_not_stop_the_others(tmp_path, programs):
    bad, good = make_run(tmp_path, 0), make_run(tmp_path, 1)
    bad.folder.mkdir(parents=True)
    (bad.folder / "fail").touch()
    told = []
    with pytest.raises(InputError, match="1 of 2 runs failed") as raised:
        run_all([bad, good], 1, told.append)
    assert "\n" not in str(raised.value)
    assert bad.scores() is None
    assert good.scores() is not None
    assert told[1] == "net, seed 0: failed: no space left; 1 runs left"


def test_other_options_are_refused(tmp_path, programs):
    run_all([make_run(tmp_path)], 1, lambda line: None)
    with pytest.raises(InputError, match="begun with other options than those of net, seed 0"):
        run_all([make_run(tmp_path, 0, "--epochs", "3")], 1, lambda line: None)
    (tmp_path / "seed0" / "run.json").write_text("[", encoding="utf-8")
    with pytest.raises(InputError, match="begun with other options"):
        run_all([make_run(tmp_path)], 1, lambda line: None)


def test_a_program_says_why_it_failed(tmp_path, programs):
    folder = tmp_path / "place"
    folder.mkdir()
    line = ["main_only_pose.py", "--experiment_path", str(folder), "--seed", "0"]
    run_program(line, tmp_path / "logs" / "a.log")
    (folder / "fail").touch()
    with pytest.raises(InputError, match=r"main_only_pose.py failed: no space left \(log: "):
        run_program(line, tmp_path / "logs" / "a.log")


# ---------------------------------------------------------------- annotations


@pytest.fixture
def pickle_file(tmp_path):
    """Return a pickle as that of the real clips: coordinates around 1 in an image of 2 x 2."""
    rng = np.random.default_rng(0)
    splits = {"train": ["a", "b", "c", "d"], "test": ["e", "f"]}
    clips = []
    for number, name in enumerate(name for names in splits.values() for name in names):
        tracks = np.ones((6 + number, 1, 15, 3), np.float32)
        tracks[..., :2] = 1 + rng.uniform(-1.5, 1.5, (6 + number, 1, 15, 2))
        tracks[0, 0, 4] = 0  # the left shoulder was not found
        clips.append(Annotation(name, number % 2, tracks, (2, 2)))
    write_annotations(tmp_path / "few.pkl", clips, splits)
    return tmp_path / "few.pkl"


def test_coco17_has_the_joints_that_are_there_in_pixels(pickle_file, tmp_path):
    paths = jhmdb.prepare(pickle_file, tmp_path / "made")
    assert paths["given"] == pickle_file
    given = open_annotations(pickle_file, JHMDB15, tmp_path / "cache")
    coco = open_annotations(paths["coco17"], None, tmp_path / "cache")
    assert coco.layout == COCO17
    assert coco.splits == given.splits
    assert {coco.label(name) - given.label(name) for name in given.names} == {0}
    assert coco.size("e") == (600, 600)
    one, other = given.keypoints("e"), coco.keypoints("e")
    for joint, name in enumerate(COCO17.joints):
        if name in JHMDB15.joints or name == "nose":
            source = one[:, :, JHMDB15.joints.index("face" if name == "nose" else name)]
            seen = source[..., 2] > 0
            assert np.array_equal(other[:, :, joint, 2], source[..., 2])
            expected = (source[seen][:, :2] - 1) * 100 + 300
            assert np.allclose(other[:, :, joint][seen][:, :2], expected, atol=1e-3)
            assert not other[:, :, joint][~seen].any()
        else:
            assert "eye" in name or "ear" in name
            assert not other[:, :, joint].any()


def test_made_pickles_are_kept(pickle_file, tmp_path):
    paths = jhmdb.prepare(pickle_file, tmp_path / "made")
    before = paths["coco17"].stat().st_mtime_ns
    jhmdb.prepare(pickle_file, tmp_path / "made")
    assert paths["coco17"].stat().st_mtime_ns == before
    # Another pickle in the same folder is no reason to see the clips of the first.
    other = write(tmp_path / "other.pkl", [annotation(joints=15, frames=7)], {"train": ["a"]})
    assert jhmdb.prepare(other, tmp_path / "made")["coco17"] != paths["coco17"]


@pytest.mark.skipif(not DATA.is_file(), reason="the clips of JHMDB are not part of the project")
def test_real_people_are_within_the_image(tmp_path):
    paths = jhmdb.prepare(DATA, tmp_path)
    found = open_annotations(paths["coco17"], None, tmp_path / "cache")
    assert {split: len(names) for split, names in found.splits.items()} == {
        "train": 433,
        "test": 176,
    }
    for name in found.names:
        keypoints = found.keypoints(name)
        xy = keypoints[keypoints[..., 2] > 0][:, :2]
        assert xy.min() > 0
        assert xy.max() < 600


# ---------------------------------------------------------------- entries


@pytest.fixture
def args(tmp_path):
    return jhmdb.parse(["--annotations", "x.pkl", "--work", str(tmp_path), "--seeds", "1", "0"])


def test_every_entry_is_a_line_that_our_programs_take(args):
    paths = {name: Path(f"{name}.pkl") for name in ("given", "coco17")}
    for name in jhmdb.ENTRIES:
        run = jhmdb.make_run(name, 3, paths, args)
        chosen = opts.parse_pose_train_args([*run.train[1:], *run.next_step()[-6:]])
        assert chosen.threads == 1
        assert chosen.seed == 3
        assert (chosen.train_split or "train", chosen.val_split) == ("train", "test")
        assert name.startswith(chosen.pose_model)
        if chosen.pose_model in jhmdb.GRAPH_MODELS:
            assert name == f"{chosen.pose_model}_{chosen.pose_streams[0]}"
            assert chosen.annotations == Path("given.pkl")
        assert run.weights == "last.pth.tar"
        tested = parse_test_args(["--weights", "last.pth.tar", *run.test])
        assert (tested.num_clips, tested.softmax) == (10, True)
        assert tested.double_flip == (chosen.pose_model == "posec3d")


def test_all_streams_of_all_graph_networks_are_entries():
    assert len(jhmdb.ENTRIES) == 5 * 4 + 1 + 3


def test_epochs_are_given_for_all(args):
    args.epochs = 2
    paths = dict.fromkeys(("given", "coco17"), Path("x.pkl"))
    for name in jhmdb.ENTRIES:
        run = jhmdb.make_run(name, 0, paths, args)
        assert opts.parse_pose_train_args(run.train[1:]).epochs == 2


def test_bfloat16_is_for_networks_of_whole_clips(args):
    args.with_amp = True
    paths = dict.fromkeys(("given", "coco17"), Path("x.pkl"))
    for name in jhmdb.ENTRIES:
        is_small = name in jhmdb.FRAME_MODELS
        assert ("--with_amp" in jhmdb.make_run(name, 0, paths, args).train) != is_small


# ---------------------------------------------------------------- tables


def scores_of(right, classes=14) -> ClipScores:
    """Return scores of clips that are right or not."""
    labels = np.arange(len(right)) % classes
    answers = np.where(right, labels, (labels + 1) % classes)
    probabilities = np.full((len(right), classes), 0.2 / (classes - 1))
    probabilities[np.arange(len(right)), answers] = 0.8
    names = tuple(f"class {k}" for k in range(classes))
    clips = tuple(f"clip {n}" for n in range(len(right)))
    return ClipScores(clips, labels, probabilities, names, "probabilities")


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    return {
        f"stgcnpp_{stream}": {seed: scores_of(rng.random(176) < 0.82) for seed in (0, 1, 2)}
        for stream in jhmdb.STREAMS
    }


def test_every_line_says_how_many_classes(found, tmp_path):
    lines = jhmdb.report(found, tmp_path).splitlines()
    told = [line for line in lines if "stgcnpp" in line]
    assert len(told) == 4 + 2 + 5
    assert all("14 of 21 classes" in line for line in told)


def test_a_row_has_mean_spread_and_interval(found):
    by_seed = found["stgcnpp_joint"]
    rights = [int((s.scores.argmax(1) == s.labels).sum()) for s in by_seed.values()]
    cells = [cell.strip() for cell in jhmdb.row("net", by_seed).strip("|").split("|")]
    assert cells[1] == f"{', '.join(map(str, rights))} of 176"
    assert cells[2] == f"{np.mean(rights) / 176:.1%}"
    assert cells[3] == f"{100 * np.std(rights, ddof=1) / 176:.1f}"
    low, high = jhmdb.clip_interval(by_seed)
    assert low < np.mean(rights) / 176 < high
    assert cells[5] == f"{100 * (np.mean(rights) / 176 - 0.801):+.1f}"


def test_clips_in_another_order_say_the_same(found):
    by_seed = found["stgcnpp_joint"]
    first = by_seed[0]
    order = np.random.default_rng(1).permutation(len(first))
    mixed = ClipScores(
        tuple(first.clips[n] for n in order), first.labels[order], first.scores[order],
        first.classes, first.kind,
    )  # fmt: skip
    other = {1: by_seed[1], 0: mixed, 2: by_seed[2]}
    same = {1: by_seed[1], 0: first, 2: by_seed[2]}
    assert jhmdb.clip_interval(other) == jhmdb.clip_interval(same)


def test_one_seed_has_no_spread(found):
    cells = jhmdb.row("net", {0: found["stgcnpp_joint"][0]}).split("|")
    assert cells[4].strip() == ""


def test_ensembles_have_the_published_weights_and_are_kept(found, tmp_path):
    jhmdb.report(found, tmp_path)
    kept = read_scores(tmp_path / "ensembles" / "stgcnpp_four_streams" / "scores_seed1.npz")
    parts = [found[f"stgcnpp_{stream}"][1].scores for stream in jhmdb.STREAMS]
    expected = np.average(parts, axis=0, weights=[2, 2, 1, 1])  # joint, bone, their motions
    assert np.allclose(kept.scores, expected, atol=1e-6)
    pair = read_scores(tmp_path / "ensembles" / "stgcnpp_two_streams" / "scores_seed1.npz")
    assert np.allclose(pair.scores, (parts[0] + parts[1]) / 2, atol=1e-6)


def test_ensembles_need_all_streams_of_a_seed(found):
    del found["stgcnpp_bone_motion"][2]
    mixed = dict(jhmdb.mix("stgcnpp", found))
    assert list(mixed["stgcnpp_four_streams"]) == [0, 1]
    assert list(mixed["stgcnpp_two_streams"]) == [0, 1, 2]
    del found["stgcnpp_bone"]
    assert jhmdb.mix("stgcnpp", found) == []


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.5, "is not above"), (0.83, "is above, within its interval,"), (0.97, "with its whole")],
)
def test_the_baseline_is_passed_or_not(share, verdict):
    by_seed = {0: scores_of(np.arange(176) < share * 176)}
    assert verdict in jhmdb.comparisons({"agcn_bone": by_seed})[0]


def test_results_of_other_options_are_not_told(pickle_file, tmp_path, programs, capsys):
    line = ["--annotations", str(pickle_file), "--work", str(tmp_path / "work"), "--seeds", "0"]
    jhmdb.main([*line, "--only", "mlp"])
    capsys.readouterr()
    with pytest.raises(InputError, match="begun with other options"):
        jhmdb.main([*line, "--only", "mlp", "--epochs", "7"])
    assert "| mlp |" not in capsys.readouterr().out


def test_what_is_done_is_told_when_the_rest_failed(pickle_file, tmp_path, programs, capsys):
    work = tmp_path / "work"
    (work / "runs" / "gcn" / "seed0").mkdir(parents=True)
    (work / "runs" / "gcn" / "seed0" / "fail").touch()
    line = ["--annotations", str(pickle_file), "--work", str(work), "--seeds", "0"]
    with pytest.raises(InputError, match="1 of 2 runs failed, such as gcn, seed 0"):
        jhmdb.main([*line, "--only", "mlp", "gcn"])
    out = capsys.readouterr().out
    assert "| mlp | 3 of 4" in out
    assert "| gcn |" not in out


def test_the_script_from_end_to_end(pickle_file, tmp_path, programs, capsys):
    line = ["--annotations", str(pickle_file), "--work", str(tmp_path / "work"), "--seeds", "0"]
    jhmdb.main([*line, "--only", "stgcnpp_joint", "conv1d", "--jobs", "2"])
    out = capsys.readouterr().out
    assert "| stgcnpp_joint | 3 of 4 | 75.0% |" in out
    assert "2 of 21 classes" in out
    note = json.loads((tmp_path / "work/runs/conv1d/seed0/run.json").read_text(encoding="utf-8"))
    assert (
        note["train"][note["train"].index("--annotations") + 1].split("/")[-1].startswith("coco17-")
    )
