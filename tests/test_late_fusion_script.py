"""benchmarks/late_fusion.py: its runs are lines that our programs take; its tables."""

import numpy as np
import pytest

import opts
from benchmarks import late_fusion
from campaigns.plan import _parse_training
from results.compare import holm
from results.intervals import wilson_interval
from results.score_files import ClipScores


@pytest.fixture
def args(tmp_path):
    return late_fusion.parse(["--work", str(tmp_path)])


def parse(entry, options):
    line = ["--dataset", "synthetic", *options]
    if entry.script == "main.py":
        return opts.parse_train_args(line)
    return opts.parse_pose_train_args(line)


def test_every_entry_is_a_line_that_our_programs_take(args):
    fusions = {}
    for name, entry in late_fusion.ENTRIES.items():
        for place in (0, 1):
            chosen = parse(entry, late_fusion.options_of(entry, args, place))
            assert chosen.epochs == entry.epochs[place]
            assert chosen.lr == (entry.lr if place == 0 else 0.001)
            assert chosen.threads == 1
        fusions[name] = (chosen.fusion, chosen.pose_model, chosen.stream_losses)
    assert fusions["rgb"][0] == "none"
    assert fusions["early"][0] == "early"
    assert fusions["pose_stgcnpp"] == ("pose", "stgcnpp", 0)
    assert {fusions[f"late_{name}"] for name in ("mlp", "mlp_losses", "stgcnpp")} == {
        ("late_attention", "mlp", 0),
        ("late_attention", "mlp", 0.5),
        ("late_attention", "stgcnpp", 0),
    }
    assert fusions["late_stgcnpp_losses"] == ("late_attention", "stgcnpp", 0.5)


def test_cross_validations_take_the_lines(args):
    for entry in late_fusion.ENTRIES.values():
        options = late_fusion.options_of(entry, args, 1)
        place = ["--dataset", "x", "--dataset_path", "y", "--fold_val", "0"]
        assert _parse_training(entry.script, [*place, *options]).dataset == "x"


def test_pairs_are_of_entries():
    names = {name for pair in late_fusion.PAIRS for name in pair}
    assert names == set(late_fusion.ENTRIES)


def test_further_options_come_last(args):
    args.more, args.epochs = ["--lr", "0.5"], 3
    entry = late_fusion.ENTRIES["early"]
    chosen = parse(entry, late_fusion.options_of(entry, args, 0))
    assert (chosen.lr, chosen.epochs) == (0.5, 3)


def test_the_real_data_need_their_folder(capsys):
    with pytest.raises(SystemExit) as ended:
        late_fusion.parse(["--work", "x", "--data", "gmdcsa24"])
    assert ended.value.code == 2
    assert "--data gmdcsa24 needs --source" in capsys.readouterr().err


# ---------------------------------------------------------------- tables


def scores_of(right, groups=None) -> ClipScores:
    labels = np.arange(len(right)) % 2
    scores = np.eye(2)[np.where(right, labels, 1 - labels)]
    clips = tuple(f"clip {n}" for n in range(len(right)))
    return ClipScores(clips, labels, scores, ("no", "fall"), "logits", groups)


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    return {
        name: {seed: scores_of(rng.random(40) < share) for seed in (0, 1)}
        for name, share in (("rgb", 0.5), ("late_mlp", 0.7), ("late_stgcnpp", 0.9))
    }


def test_rows_have_counts_and_wilsons_interval(found):
    counts, accuracy, interval = late_fusion.row(found["late_mlp"])
    rights = [int((s.scores.argmax(1) == s.labels).sum()) for s in found["late_mlp"].values()]
    assert counts == f"{rights[0]}, {rights[1]} of 40"
    assert accuracy == f"{sum(rights) / 80:.1%}"
    low, high = wilson_interval(sum(rights) / 2, 40)
    assert interval == f"{low:.1%} to {high:.1%}"


def test_pairs_are_compared_where_both_are_there(found):
    lines = late_fusion.pair_table(found)
    assert [line for line in lines if line.startswith("| late")][0].startswith(
        "| late_stgcnpp against late_mlp | +"
    )
    assert sum(" against " in line for line in lines) == 2  # the head, and this pair
    assert late_fusion.pair_table({"rgb": found["rgb"]}) == []


def test_p_values_are_adjusted_for_their_number(found):
    found["late_mlp_losses"] = found["rgb"]
    lines = [line for line in late_fusion.pair_table(found) if line.startswith("| late")]
    raw, adjusted = zip(
        *([float(c) for c in line.strip("| ").split(" | ")[-2:]] for line in lines), strict=True
    )
    assert len(raw) == 2
    assert adjusted == pytest.approx(holm(raw), rel=0.02)


def test_tables_have_intervals_over_subjects_where_there_are_some(found):
    text = late_fusion.tables("x", found, {})
    assert "over subjects" not in text
    assert "majority class: 50.0%" in text
    text = late_fusion.tables("x", found, dict.fromkeys(found, (0.25, 0.75)))
    assert text.count("25.0% to 75.0%") == 3
    lines = text.partition("majority")[0].splitlines()
    assert {line.count("|") for line in lines if line.startswith("|")} == {6}


def test_units_are_named():
    groups = tuple(f"subject {n % 4}" for n in range(40))
    found = {
        name: {0: scores_of(np.arange(40) % k > 0, groups)}
        for name, k in (("late_mlp", 2), ("late_stgcnpp", 5))
    }
    assert "over 4 groups" in late_fusion.pair_table(found)[-1]
