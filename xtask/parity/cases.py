"""Writes case files: weights, inputs, and what the reference makes of them."""

import argparse
import os
import sys
import time

import case_file
import environment
import matrix
from lines import print_line
from problem import Problem


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", metavar="DIR", help="where NAME.safetensors are written")
    tier = parser.add_mutually_exclusive_group()
    tier.add_argument("--quick", dest="tier", action="store_const", const="quick", help="few cases, every option")
    tier.add_argument("--fixtures", dest="tier", action="store_const", const="fixtures", help="tiny ones, every option")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only names that contain this")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of PyTorch and XLA (1)")
    parser.add_argument("--list", action="store_true", help="print the names and write nothing")
    parser.set_defaults(tier="full")
    args = parser.parse_args()
    if not args.list and not args.out:
        parser.error("--out DIR is needed to write cases")
    if args.threads < 1:
        parser.error("--threads must be at least 1")
    return args


def select(args):
    cases = matrix.select(args.tier, args.filter)
    if not cases:
        some = ", ".join(case.name for case in matrix.select(args.tier, "")[::12])
        print(f"no case has {args.filter!r} in its name; some names: {some}", file=sys.stderr)
        sys.exit(2)
    return cases


def write(case, folder):
    from produce import produce

    case_file.write(os.path.join(folder, f"{case.name}.safetensors"), *produce(case))


def main():
    args = arguments()
    cases = select(args)
    if args.list:
        for case in cases:
            print_line(case.summary())
        return
    print_line({"versions": environment.versions()})
    environment.prepare(args.threads)
    for index, case in enumerate(cases, start=1):
        begun = time.perf_counter()
        write(case, args.out)
        seconds = round(time.perf_counter() - begun, 3)
        print_line({"case": case.name, "index": index, "total": len(cases), "seconds": seconds})


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(f"error: {problem}")
