"""What a measurement depends on besides the code."""

import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from machine import has_fast_bf16, num_cores
from reports import environment

_CPU_INFO = Path("/proc/cpuinfo")


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return processor, device, versions, commit and date."""
    facts = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "fast bfloat16 on the CPU": has_fast_bf16(),
        "device": str(device),
        **environment(),
        "numba": _version("numba"),
        "triton": _version("triton"),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu_name() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
