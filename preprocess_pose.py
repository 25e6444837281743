"""Find keypoints in the frames of a data set: writes poses/<clip>.npz for each listed clip.

python preprocess_pose.py                            # dataset/FRFS, yolo11x-pose.pt
python preprocess_pose.py --dataset FRFS --dataset_path <folder> --pose_weights <file>
torchrun --nproc_per_node=4 preprocess_pose.py ...   # the clips are shared

Clips that have keypoints are left alone, so an interrupted run continues. Damaged clips are named
and left out; the exit code is then 2 with --strict, and always when no clip could be done.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from checkup import check_prepared
from console import say
from datasets.catalogue import find_row
from datasets.clip_table import load_table
from datasets.frames import ImageFrames
from datasets.pose_files import write_frame_poses
from datasets.prepare.pose_jobs import PosePlan, PoseWishes, plan_poses
from datasets.records import ClipRecord, load_records
from errors import InputError, run_script
from extraction import Tally, Worker, claimed, named, say_damaged
from files import remove_partials
from machine import StopRequest, choose_own_device, num_cores, prepare_cpu
from models.estimators import EstimatorOpts, build_estimator, weights_notes
from options.poses import parse_pose_args
from ranks import Ranks


def main(argv: Sequence[str] | None = None) -> int:
    """Estimate what is missing; return how many clips were done, by all processes."""
    args = parse_pose_args(argv)
    row = find_row(args.dataset)
    root = args.dataset_path / row.folder
    records = listed_clips(root)
    ranks = Ranks.join()
    with StopRequest() as stop, ranks.ending_together(), claimed(root, ranks):
        if ranks.is_first:
            remove_partials(root / "poses")
            if args.per_frame_npy:
                remove_partials(root / "frames")
        ranks.wait_for_first("cleaned", stop.poll)
        plan = plan_poses(root, row, records, load_table(root), wishes_of(args))
        ranks.wait_for_all("planned", stop.poll)  # nobody writes while others still look
        if ranks.is_first:
            say_plan(root, plan)
        tally = work(root, plan, args, ranks, stop)
        tallies = ranks.gather("done", vars(tally), stop.poll)
    if not ranks.is_first:
        return 0
    return finish(root, plan, args, [Tally(**values) for values in tallies])


def finish(root: Path, plan: PosePlan, args: argparse.Namespace, tallies: list["Tally"]) -> int:
    """Say what was done, check the data set; return the number of clips done."""
    for tally in tallies[1:]:  # process 0 said its own at once
        say_damaged(tally.damaged)
    total = Tally.sum(tallies)
    damaged = {**plan.damaged, **total.damaged}
    if total.clips:
        say(total.text(root))
    if damaged:
        say(f"{len(damaged)} damaged clips were left out, see above: {named(damaged)}")
    if not args.no_check:
        check_prepared(
            args.dataset, args.dataset_path, strict=args.strict, decode=False, wrote=("poses",)
        )
    if damaged and (args.strict or not total.clips + plan.done + len(plan.frames_only)):
        name, reason = next(iter(damaged.items()))
        raise InputError(f"{len(damaged)} clips are damaged, such as {name}: {reason}")
    return total.clips


# ---------------------------------------------------------------- what there is to do


def listed_clips(root: Path) -> list[ClipRecord]:
    """Return the clips of all lists of a data set, each once."""
    lists = sorted(root.glob("*_videofolder.txt"))
    if not lists:
        raise InputError(
            f"{root} has no clip list (*_videofolder.txt): prepare the data set first, or name its "
            "place with --dataset and --dataset_path"
        )
    return list({record.name: record for path in lists for record in load_records(path)}.values())


def wishes_of(args: argparse.Namespace) -> PoseWishes:
    """Return what is asked of clips that have keypoints."""
    weights = weights_notes(args.pose_backend, args.pose_weights, args.detector_weights)
    return PoseWishes({**option_notes(args), **weights}, args.overwrite, args.per_frame_npy)


def option_notes(args: argparse.Namespace) -> dict[str, str]:
    """Return the options that decide keypoints, as their files keep them."""
    return {
        "detector": args.pose_backend,
        "conf": str(args.conf),
        "imgsz": str(args.imgsz or "default"),
        "max_people": str(args.max_people),
        "main_athlete": args.main_athlete,
    }


def say_plan(root: Path, plan: PosePlan) -> None:
    """Say what was found."""
    say_damaged(plan.damaged)
    for reason in plan.redone.values():
        say(f"done again: {reason}")
    if plan.others:
        name, difference = next(iter(plan.others.items()))
        say(
            f"{len(plan.others)} clips keep keypoints that were made otherwise, such as {name}: "
            f"{difference}; --overwrite makes them anew"
        )
    if not plan.todo and not plan.frames_only and plan.done:
        say(f"{root}: {plan.done} clips have keypoints, nothing to do")


# ---------------------------------------------------------------- the work


def work(
    root: Path, plan: PosePlan, args: argparse.Namespace, ranks: Ranks, stop: StopRequest
) -> Tally:
    """Do the share of this process."""
    tally = Tally()
    for job, archive in ranks.share(plan.frames_only):
        stop.poll()
        if isinstance(job.images, ImageFrames):
            write_frame_poses(job.images.files, archive.load().keypoints[:, 0])
            tally.derived += 1
    if ranks.is_first and tally.derived:
        say("the published files of clips that have keypoints are written from these")
    if not plan.todo:
        return tally
    prepare_cpu(args.threads or max(1, num_cores() // (2 * ranks.count)))
    if not ranks.is_first:  # whatever is wrong with the weights, process 0 alone says it
        ranks.wait_for_first("estimator", stop.poll)
    estimator = build_estimator(args.pose_backend, estimator_opts(args, ranks))
    if ranks.is_first:
        ranks.wait_for_first("estimator", stop.poll)
    Worker(root, args, option_notes(args), estimator).run(plan.todo, tally, ranks, stop)
    return tally


def estimator_opts(args: argparse.Namespace, ranks: Ranks) -> EstimatorOpts:
    """Return the options of the estimator; each process has its own CUDA device."""
    return EstimatorOpts(
        weights=args.pose_weights,
        detector=args.detector_weights,
        device=str(choose_own_device(args.device, args.gpus, ranks.own_share)),
        confidence=args.conf,
        image_size=args.imgsz,
        batch_size=args.pose_batch,
        download=args.download,
    )


if __name__ == "__main__":
    run_script(main)
