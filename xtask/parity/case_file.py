"""Case files: safetensors with one JSON string, "case", in their metadata."""

import json
import os

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from problem import Problem


def write(path, case, tensors):
    """Under another name first, so that a run that is cut short leaves no half file."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # Safetensors writes memory as it lies; `ascontiguousarray` would turn scalars into vectors.
    tensors = {name: np.asarray(x, order="C") for name, x in tensors.items()}
    with open(f"{path}.partial", "wb") as file:
        file.write(save(tensors, metadata={"case": json.dumps(case)}))
    os.replace(f"{path}.partial", path)


def read(path):
    """The "case" of a file and its tensors."""
    metadata, tensors = open_file(path)
    if "case" not in metadata:
        raise Problem(f'{path}: no "case" in the metadata')
    return json.loads(metadata["case"]), tensors


def read_tensors(path):
    return open_file(path)[1]


def open_file(path):
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as error:
        raise Problem(f"{path}: no such file") from error
    except (OSError, SafetensorError) as error:
        raise Problem(f"{path}: {error}") from error


def prefixed(prefix, tensors):
    return {f"{prefix}.{name}": x for name, x in tensors.items()}


def under(prefix, tensors):
    """The tensors whose names begin with the prefix, without it."""
    start = f"{prefix}."
    return {name[len(start):]: x for name, x in tensors.items() if name.startswith(start)}
