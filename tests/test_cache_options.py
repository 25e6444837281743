"""Options of the frame cache, and what they choose."""

import shlex
from pathlib import Path

import pytest

import opts
from datasets.cache import CacheSpec, stored_size
from options.testing import parser_of_tests
from transforms import eval_geometries

# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "stored"),
    [
        ((1280, 720), (455, 256)),
        ((720, 1280), (256, 455)),
        ((256, 256), (256, 256)),
        ((160, 90), (160, 90)),
        ((257, 1001), (256, 997)),
        ((4000, 300), (3413, 256)),
    ],
)
def test_the_short_side_is_cut_to_256_and_nothing_is_enlarged(size, stored):
    assert stored_size(size, 256) == stored
    ratio = stored[0] * size[1] / (stored[1] * size[0])
    assert abs(ratio - 1) < 0.51 / min(stored) + 1e-9


def test_the_default_size_is_that_of_evaluation_crops(tmp_path):
    for size, short in ((224, 256), (112, 128), (16, 18)):
        spec = CacheSpec.choose(tmp_path / "FRFS", size, default_base=tmp_path)
        assert spec.short_side == short
        frame = stored_size((1280, 720), spec.short_side)
        (crop,) = eval_geometries(*frame, size)
        assert abs(crop.box.width - size) <= 1


def test_folders_do_not_mix(tmp_path):
    one = CacheSpec.choose(tmp_path / "a" / "FRFS", 224, default_base=tmp_path)
    other = CacheSpec.choose(tmp_path / "b" / "FRFS", 224, default_base=tmp_path)
    small = CacheSpec.choose(tmp_path / "a" / "FRFS", 112, default_base=tmp_path)
    assert len({one.folder, other.folder, small.folder}) == 3
    given = [
        CacheSpec.choose(tmp_path / place / "FRFS", 224, base=tmp_path, default_base=tmp_path)
        for place in "ab"
    ]
    assert given[0] == given[1]  # a copied data set finds its frames


# ---------------------------------------------------------------- options


def refusal(capsys, argv: str) -> str:
    with pytest.raises(SystemExit):
        opts.parse_train_args(shlex.split(f"--dataset synthetic {argv}"))
    return capsys.readouterr().err


def test_options_that_do_not_go_together(capsys):
    assert "--cache_dir needs --cache frames" in refusal(capsys, "--cache_dir x")
    assert "--cache_short_side needs" in refusal(capsys, "--cache_short_side 100 --cache none")
    argv = "--cache frames --late_fusion_poses --pose_weights w.pt"
    assert "run preprocess_pose.py" in refusal(capsys, argv)
    with pytest.raises(SystemExit):
        opts.parse_pose_train_args(["--dataset", "synthetic", "--cache", "frames"])
    assert "skeletons alone" in capsys.readouterr().err


def test_tests_take_the_options_too():
    args = parser_of_tests().parse_args(
        ["--weights", "x", "--cache", "frames", "--cache_short_side", "300", "--cache_dir", "y"]
    )
    assert (args.cache, args.cache_short_side, args.cache_dir) == ("frames", 300, Path("y"))
