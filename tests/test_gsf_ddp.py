"""GSF under DistributedDataParallel: each process its own clips, the mean of their gradients."""

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from ops.gsf import GSF

PROCESSES = 2


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), GSF(8, 2), nn.BatchNorm2d(8), nn.ReLU())


def clips(rank):
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(rank))


def gradients(model, x):
    model(x).square().mean().backward()
    return [p.grad.clone() for p in model.parameters()]


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    model = DistributedDataParallel(network())
    torch.save(gradients(model, clips(rank)), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_gradients_are_the_mean_of_all_processes(tmp_path):
    multiprocessing.spawn(work, (str(tmp_path),), PROCESSES)
    alone = [gradients(network(), clips(rank)) for rank in range(PROCESSES)]
    expected = [torch.stack(grads).mean(0) for grads in zip(*alone, strict=True)]
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)
