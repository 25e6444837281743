"""How long an export takes, how large its files are, how fast onnxruntime is against PyTorch.

python benchmarks/export_speed.py --weights <run>/best.pth.tar <other run>/best.pth.tar

One thread; PyTorch and onnxruntime take turns, the best of `--rounds` counts. The ratio is of one
run on one machine and says little about others.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say  # noqa: E402
from deployment.folder import ONNX, WEIGHTS, write_weights  # noqa: E402
from deployment.networks import TorchNetwork, load_network  # noqa: E402
from deployment.onnx_export import example_batch, export_onnx  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.types import OneLineParser, positive  # noqa: E402
from results.run_results import describe  # noqa: E402

CPU = torch.device("cpu")


def main() -> None:
    """Print one table."""
    parser = OneLineParser(description="Export time, file sizes and speed of onnxruntime.")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="checkpoints")
    parser.add_argument("--clips", type=positive, default=4, help="in a batch")
    parser.add_argument("--rounds", type=positive, default=15, help="the best one counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    say(
        "| model | traced, s | safetensors, MB | ONNX, MB | PyTorch, ms a clip | onnxruntime | "
        "ratio |\n|---|---|---|---|---|---|---|"
    )
    for path in args.weights:
        say(measure(path, args.clips, args.rounds))


def measure(path: Path, clips: int, rounds: int) -> str:
    """Return a row of the table."""
    network = load_network(path, CPU)
    if not isinstance(network, TorchNetwork):
        raise InputError(f"{path} is no checkpoint: give the one that was exported")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.process_time()
        export_onnx(network.model, network.config, folder / ONNX)
        traced = time.process_time() - start
        write_weights(folder, network.model)
        sizes = [(folder / file).stat().st_size / 1e6 for file in (WEIGHTS, ONNX)]
        exported = load_network(folder / ONNX, CPU)
    batch = example_batch(network.config, clips)
    both = (lambda: network.logits(batch)), (lambda: exported.logits(batch))
    times = [[_seconds(call) for call in both] for _ in range(rounds)]
    torch_time, onnx_time = (1e3 * min(column) / clips for column in zip(*times, strict=True))
    return (
        f"| {describe(network.config.options)} | {traced:.1f} | {sizes[0]:.1f} | {sizes[1]:.1f} | "
        f"{torch_time:.2f} | {onnx_time:.2f} | {torch_time / onnx_time:.2f} |"
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    run_script(main)
