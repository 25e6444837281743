"""Packages that only exported models need."""

import importlib
from types import ModuleType

from errors import InputError


def need(package: str, purpose: str) -> ModuleType:
    """Import a package that not everybody has.

    Args:
        package: its name, also for pip.
        purpose: why it is needed, as in "to run ONNX files".

    Raises:
        InputError: it is not installed, or does not work here.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{package} is needed {purpose} and cannot be imported ({str(error)[:100]}): "
            f"pip install {package}"
        ) from error
