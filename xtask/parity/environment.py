"""The machine's side of a run: versions, threads and the warnings of the reference that say nothing new."""

import datetime
import os
import platform
import warnings
from importlib import metadata

PACKAGES = [
    "torch",
    "gateloop-transformer",
    "rotary-embedding-torch",
    "jax",
    "jaxlib",
    "equinox",
    "numpy",
]


def versions():
    found = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def prepare(threads):
    """Must run before JAX is imported: XLA reads these variables once."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["NPROC"] = str(threads)
    warnings.filterwarnings("ignore", message=".*use_reentrant.*")
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    warnings.filterwarnings("ignore", message=".*static_field.*")

    import torch

    torch.set_num_threads(threads)
