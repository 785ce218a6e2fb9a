"""Loads weights that the Rust side wrote back into the reference, strictly, and runs them.

For every DIR/NAME.safetensors with a DIR/back/NAME.safetensors: the weights must fit the reference's
module by name, shape and type, and give the bits that the original weights give.
"""

import argparse
import os
import sys
from pathlib import Path

import case_file
import environment
import reference
from lines import print_line
from matrix.case import Subject
from problem import Problem


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", help="case files, with the weights written back in DIR/back")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of PyTorch and XLA (1)")
    return parser.parse_args()


def written_back(folder):
    names = sorted(path.name for path in Path(folder, "back").glob("*.safetensors"))
    if not names:
        print(f"nothing to verify: no safetensors files in {os.path.join(folder, 'back')}", file=sys.stderr)
        sys.exit(2)
    return names


def problem_with(folder, file):
    """What is wrong with the weights written back, or nothing."""
    try:
        case, tensors = case_file.read(os.path.join(folder, file))
        back = case_file.read_tensors(os.path.join(folder, "back", file))
        subject = Subject.of_metadata(case)
        return difference(subject, tensors, back) or difference_of_others(folder, file, subject, back)
    except Problem as problem:
        return str(problem)


def difference(subject, tensors, back):
    original, inputs = case_file.under("param", tensors), case_file.under("input", tensors)
    output = reference.of(subject.framework).output
    expected, found = output(subject, original, inputs), output(subject, back, inputs)
    changed = [name for name in original if original[name].tobytes() != back[name].tobytes()]
    if expected.tobytes() != found.tobytes():
        return f"the output is not that of the original weights; changed: {', '.join(changed) or 'none'}"
    # Weights that take no part in this case must survive too.
    return f"changed without effect on the output: {', '.join(changed)}" if changed else None


def difference_of_others(folder, file, subject, back):
    """JAX weights come in formats of their own as well."""
    if subject.framework != "jax":
        return None
    path = os.path.join(folder, "back", file.removesuffix(".safetensors"))
    for extension, weights in reference.of(subject.framework).other_files(subject, path):
        odd = weights.keys() ^ back.keys()
        changed = [name for name in back if name in weights and back[name].tobytes() != weights[name].tobytes()]
        if odd or changed:
            return f"the .{extension} file holds other weights: {', '.join(sorted(odd) + changed)}"
    return None


def main():
    args = arguments()
    environment.prepare(args.threads)
    failures = 0
    for file in written_back(args.folder):
        problem = problem_with(args.folder, file)
        failures += problem is not None
        fields = {"case": file.removesuffix(".safetensors"), "ok": problem is None}
        print_line(fields | ({"problem": problem} if problem else {}))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
