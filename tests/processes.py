"""Functions in several forked processes that form a group, as torchrun starts them."""

import multiprocessing
import pickle
import sys
import traceback
from dataclasses import dataclass

import torch
from torch.distributed import FileStore

from ranks import Ranks

_SECONDS = 60


@dataclass(frozen=True)
class Failed:
    """An exception in one of the processes."""

    kind: str
    text: str


def in_processes(count, work, folder, *args):
    """Return what `work(ranks, *args)` returns in each of `count` processes.

    In place of what raised an exception stands a `Failed`; its text is shown if the test fails.
    """
    context = multiprocessing.get_context("fork")
    meeting = folder / f"meeting{len(list(folder.iterdir()))}"
    pipes, processes = [], []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        job = (theirs, rank, count, str(meeting), work, args)
        processes.append(context.Process(target=_run, args=job))
        pipes.append(ours)
        processes[-1].start()
        theirs.close()
    found = [
        pickle.loads(pipe.recv_bytes()) if pipe.poll(_SECONDS) else Failed("TimeoutError", "")
        for pipe in pipes
    ]
    for process in processes:
        process.join(_SECONDS)
        assert process.exitcode is not None, "a process hangs"
    for answer in found:
        if isinstance(answer, Failed):
            sys.stderr.write(answer.text)
    return found


def _run(pipe, rank, count, meeting, work, args):
    torch.set_num_threads(1)
    ranks = Ranks(rank, count, rank, FileStore(meeting, count), count)
    if count == 1:
        ranks = Ranks()
    try:
        ranks.start_group(torch.device("cpu"), seconds=30)
        answer = work(ranks, *args)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test shall see it
        answer = Failed(type(error).__name__, traceback.format_exc())
    pipe.send_bytes(pickle.dumps(answer))  # by value: the tensors outlive this process
    pipe.close()
