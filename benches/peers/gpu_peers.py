"""Times other people's scans and the reference on one GPU, each answer checked against f64.

    pip install torch==2.11.0 jax[cuda13] gateloop-transformer==0.2.5 accelerated-scan==0.3.1 \
        fla-core==0.6.0
    python benches/peers/gpu_peers.py --out peers.jsonl

Prints one JSON object a line: work, peer, shape [B, T, C], dtype, ms (median), ms_min, gb_s (the
minimal traffic over the median), rel_error (largest relative RMS over outputs and gradients); or
"failed" with no time where the check failed, or "error". Every unit below runs in a process of its
own, so that one that hangs or exhausts memory costs only itself.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

SCANS = ("scan_forward", "scan_forward_backward")
# module, function, unit, works, seconds allowed
UNITS = [
    # first what targets are stated against
    ("scans", "copy", "copy", ("copy",), 90),
    ("scans", "main", "fla-hgrn", SCANS, 180),
    ("models", "train", "eager", ("train_step",), 420),
    ("scans", "main", "accelerated-warp", SCANS, 300),
    ("scans", "main", "accelerated-complex", SCANS, 180),
    ("gate_loop", "heads", "fla", ("heads_forward", "heads_forward_backward"), 240),
    ("scans", "main", "torch-compile", SCANS, 600),
    ("jax_scans", "main", "jax", SCANS, 420),
    ("scans", "main", "reference", SCANS, 600),
    ("scans", "main", "torch-eager", SCANS, 180),
    ("scans", "main", "accelerated-scalar", SCANS, 180),
    ("gate_loop", "heads", "reference", ("heads_forward", "heads_forward_backward"), 120),
    ("gate_loop", "main", "eager", ("gate_loop_forward", "gate_loop_forward_backward"), 180),
    ("gate_loop", "main", "compiled", ("gate_loop_forward", "gate_loop_forward_backward"), 420),
    ("models", "train", "compiled", ("train_step",), 900),
    ("models", "decode", "eager", ("decode",), 120),
    ("models", "decode", "compiled", ("decode",), 240),
]


def arguments():
    works = list(dict.fromkeys(work for unit in UNITS for work in unit[3]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", default=",".join(works), help="of " + ", ".join(works))
    parser.add_argument(
        "--units", default="", help="run only units whose module/unit holds one of these words"
    )
    parser.add_argument(
        "--peers", default="", help="only peers whose name holds one of these words"
    )
    parser.add_argument("--quick", action="store_true", help="fewest shapes, 5 repeats")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds for everything")
    parser.add_argument("--out", help="append the lines to this file too")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.works, args.units, args.peers = (
        [word for word in words.split(",") if word]
        for words in (args.works, args.units, args.peers)
    )
    if unknown := set(args.works) - set(works):
        parser.error(f"unknown works: {', '.join(sorted(unknown))}")
    return args


def worker(args):
    """Runs one unit; results go to the first stdout, everything that peers print to stderr."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, function, unit, works, _ = UNITS[args.worker]
    from gpu import common

    ctx = common.Context(args.works, args.device, args.quick, args.tiny, args.peers, results)
    try:
        getattr(importlib.import_module(f"gpu.{module}"), function)(ctx, unit)
    except Exception as error:  # the unit could not start: an import, a build
        ctx.emit(work=works[0], peer=unit, error=f"{module}/{unit}: {common.describe(error)}")


def run_unit(args, index, seconds, report):
    module, _, unit, works, _ = UNITS[index]
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--worker", str(index)]
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # ninja, for a peer that builds its kernel, may lie beside the interpreter only
    environment["PATH"] = os.pathsep.join(
        [os.path.dirname(sys.executable), os.environ.get("PATH", "")]
    )
    begun = time.monotonic()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    expired = threading.Event()

    def expire():
        expired.set()
        kill(child)

    timer = threading.Timer(seconds, expire)
    timer.start()
    try:
        for line in child.stdout:
            report(line)
        status = child.wait()
    finally:
        timer.cancel()
        kill(child)  # compile workers may outlive their parent
    if expired.is_set() or status:
        why = f"stopped after {seconds:.0f} s" if expired.is_set() else f"exit status {status}"
        report(json.dumps({"work": works[0], "peer": unit, "error": f"{module}/{unit}: {why}"}))
    print(f"{module}/{unit}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def kill(child):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def main(args):
    out = open(args.out, "a") if args.out else None

    def report(line):
        line = line.strip()
        if not line.startswith("{"):
            return
        print(line, flush=True)
        if out:
            print(line, file=out, flush=True)

    ends = time.monotonic() + args.budget
    for index, (module, _, unit, works, seconds) in enumerate(UNITS):
        chosen = not args.units or any(word in f"{module}/{unit}" for word in args.units)
        if not chosen or not set(works) & set(args.works):
            continue
        left = ends - time.monotonic()
        if left < 10:
            report(
                json.dumps(
                    {"work": works[0], "peer": unit, "error": f"{module}/{unit}: out of budget"}
                )
            )
            continue
        run_unit(args, index, min(seconds, left), report)


if __name__ == "__main__":
    parsed = arguments()
    worker(parsed) if parsed.worker is not None else main(parsed)
