"""Says whether two folders hold the same cases, but for what another processor rounds otherwise."""

import argparse
import sys
from pathlib import Path

import numpy as np

import case_file
from errors import relative_rms
from problem import Problem

# Expectations are in double precision, but for the logarithms of the reference's Heinsen form.
ROUNDING, ROUNDING_OF_LOGARITHMS = 1e-9, 1e-4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", metavar="OLD", help="a folder of case files")
    parser.add_argument("new", metavar="NEW", help="a folder of case files")
    return parser.parse_args()


def names(folder):
    return {path.name for path in Path(folder).glob("*.safetensors")}


def difference(old, new):
    """In what a case differs, or nothing."""
    (old_case, old), (new_case, new) = case_file.read(old), case_file.read(new)
    # How far single precision is off is rounding through and through.
    rounding = {"reference": None, "once": None}
    if old_case | rounding != new_case | rounding:
        return "it is about something else"
    if old.keys() != new.keys():
        return f"it has other tensors: {', '.join(sorted(old.keys() ^ new.keys()))}"
    is_rough = old_case["options"].get("engine") == "heinsen_as_reference"
    tolerance = ROUNDING_OF_LOGARITHMS if is_rough else ROUNDING
    for name in sorted(old):
        if not same(name, old[name], new[name], tolerance):
            return f"{name} differs"
    return None


def same(name, old, new, tolerance):
    if old.shape != new.shape or old.dtype != new.dtype:
        return False
    if name == "greedy.margin":
        # A difference of two logits in single precision.
        return np.allclose(old, new, rtol=1e-2)
    if name.startswith("expect."):
        return relative_rms(old, new) <= tolerance
    return np.array_equal(old, new)


def main():
    args = arguments()
    old, new = names(args.old), names(args.new)
    problems = [f"{name}: missing" for name in sorted(new - old)]
    problems += [f"{name}: the references do not write it any more" for name in sorted(old - new)]
    for name in sorted(old & new):
        problem = difference(Path(args.old, name), Path(args.new, name))
        if problem:
            problems.append(f"{name}: {problem}")
    print("\n".join(problems) or f"{len(old)} cases are fresh")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(f"error: {problem}")
