"""Which run the same command goes on with."""

import shutil

import pytest

import main_only_pose
import session
from campaigns.cells import Cell, _find_run
from errors import InputError, Interrupted
from tests.small_runs import assert_equal_runs, command, run_of, runs_of, state_of


@pytest.fixture
def stopped(dataset, tmp_path, monkeypatch):
    """Return a function that trains and stops before epoch 1; it gives the run folder."""

    def stop(*more, out="out"):
        with monkeypatch.context() as patch:
            patch.setattr(session, "_run_epoch", only_epoch_0(session._run_epoch))
            with pytest.raises(SystemExit) as end:
                main_only_pose.main(command(dataset, tmp_path / out, *more))
        assert end.value.code == 143
        return runs_of(tmp_path / out)[-1]

    return stop


def only_epoch_0(run_epoch):
    def run(session, *args):
        if session.state.epoch == 1:
            raise Interrupted(15)
        return run_epoch(session, *args)

    return run


def train(dataset, out, *more):
    return main_only_pose.main(command(dataset, out, *more))


def test_an_unfinished_run_goes_on_and_a_finished_one_does_not(stopped, dataset, tmp_path):
    train(dataset, tmp_path / "straight")
    run = stopped()
    train(dataset, tmp_path / "out")
    assert_equal_runs(run_of(tmp_path / "out"), run_of(tmp_path / "straight"))
    assert (run / "finished.json").is_file()
    train(dataset, tmp_path / "out")
    assert len(runs_of(tmp_path / "out")) == 2


def test_a_run_that_was_killed_at_its_very_end_only_says_how_it_ended(dataset, tmp_path, capsys):
    train(dataset, tmp_path)
    run = run_of(tmp_path)
    (run / "finished.json").unlink()
    before = state_of(run)["epoch"]
    train(dataset, tmp_path)
    assert run_of(tmp_path) == run
    assert (run / "finished.json").is_file()
    assert state_of(run)["epoch"] == before
    assert "best val top-1" in capsys.readouterr().out


def test_a_run_without_a_checkpoint_begins_in_its_folder(stopped, dataset, tmp_path):
    run = stopped()
    for path in run.iterdir():
        if path.name not in ("args.json", "environment.json"):
            path.unlink()
    train(dataset, tmp_path / "out")
    assert run_of(tmp_path / "out") == run
    assert (run / "finished.json").is_file()


@pytest.mark.parametrize("other", [["--lr", "0.02"], ["--seed", "1"], ["--resume", "none"]])
def test_other_options_begin_a_run_of_their_own(other, stopped, dataset, tmp_path):
    run = stopped()
    train(dataset, tmp_path / "out", *other)
    assert len(runs_of(tmp_path / "out")) == 2
    train(dataset, tmp_path / "out")  # the first one is still found
    assert (run / "finished.json").is_file()
    assert len(runs_of(tmp_path / "out")) == 2


def test_less_memory_goes_on_with_fewer_clips_at_once(stopped, dataset, tmp_path):
    run = stopped()
    train(dataset, tmp_path / "out", "--micro_batch", "1")
    assert run_of(tmp_path / "out") == run
    assert state_of(run)["micro_batch"] == 1


def test_auto_takes_no_run_of_another_name(stopped, dataset, tmp_path):
    stopped("--experiment_name", "2_x")
    train(dataset, tmp_path / "out", "--experiment_name", "x", "--resume", "auto")
    assert len(runs_of(tmp_path / "out")) == 2
    stopped("--experiment_name", "y")
    with pytest.raises(InputError, match="with lr 0.01, this command says"):
        train(
            dataset, tmp_path / "out", "--experiment_name", "y", "--resume", "auto", "--lr", "0.02"
        )


def test_a_campaign_finds_a_run_whose_last_checkpoint_is_gone(stopped, tmp_path):
    run = stopped()
    (run / "last.pth.tar").unlink()
    cell = Cell(0, 1, tmp_path / "out")
    assert _find_run(cell) == run
    shutil.rmtree(run)
    assert _find_run(cell) is None
