"""A peer as a worker of `cargo xtask bench`: prepares, checks and times what it is asked for.

    python benches/peers/cpu/worker.py jax|torch

Reads `prepare KEY`, `time KEY`, `memory KEY`, `release` and `versions` from stdin, one a line, and
answers each with a line of JSON. benches/cpu/src/main.rs says what the answers are, and
benches/cpu/src/key.rs what the keys are.
"""

import gc
import json
import os
import platform
import sys
import time
from importlib import import_module, metadata

SAMPLE_SECONDS = 0.03
# Shorter samples follow runs that are not timed: the side before leaves the caches, the threads and the memory's
# free pages in another state than one's own run does.
WARMED_SECONDS = 0.5
PACKAGES = {"jax": ["jax", "jaxlib"], "torch": ["torch", "gateloop-transformer"]}


class Unavailable(Exception):
    """The peer cannot do it."""


class Wrong(Exception):
    """The answer was not that of the oracle."""


class Session:
    def __init__(self, name):
        self.name, self.peer, self.prepared = name, import_module(f"{name}_peer"), {}

    def answer(self, line):
        request, _, key = line.partition(" ")
        try:
            return getattr(self, f"do_{request}")(*([key] if key else []))
        except Wrong as error:
            return {"wrong": str(error)}
        except Exception as error:  # one work's failure must not cost the others
            return {"unavailable": describe(error)}

    def do_prepare(self, key):
        run, units = self.peer.work(*split(key), check=True)
        run()
        runs, took = 1, 0.0
        while (took := repeat(run, runs)) < SAMPLE_SECONDS and runs < 1 << 24:
            wanted = SAMPLE_SECONDS / max(took, 1e-9)
            runs = int(runs * min(max(wanted, 1.5), 10.0)) + 1
        self.prepared[key] = (run, runs, units, took < WARMED_SECONDS)
        return {}

    def do_time(self, key):
        run, runs, units, is_warmed = self.prepared[key]
        if is_warmed:
            repeat(run, -(-runs // 4))
        return {"seconds": repeat(run, runs) / runs / units}

    def do_memory(self, key):
        run, _ = self.peer.work(*split(key), check=False)
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass  # the peak then counts what was given back before
        before = status("VmRSS")
        run()
        return {"before": before, "peak": status("VmHWM")}

    def do_release(self):
        self.prepared.clear()
        gc.collect()
        self.peer.release()
        return {}

    def do_versions(self):
        found = {package: metadata.version(package) for package in PACKAGES[self.name]}
        return {"versions": {"python": platform.python_version()} | found}


def split(key):
    work, _, side = key.partition("@")
    return work.split("/"), side


def repeat(run, runs):
    begun = time.perf_counter()
    for _ in range(runs):
        run()
    return time.perf_counter() - begun


def status(field):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def describe(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' | '.join(lines[:2])}"[:300]


def main():
    # What the peers print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # `import worker` in a peer must give this module, not a second copy of it.
    sys.modules["worker"] = sys.modules["__main__"]
    session = Session(sys.argv[1])
    for line in sys.stdin:
        answers.write(json.dumps(session.answer(line.strip())) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
