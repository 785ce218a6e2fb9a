"""What every peer shares: reporting, limits, input sets, timing, and the f64 oracle of the scan."""

import collections
import contextlib
import gc
import json
import math
import signal
import statistics
import sys
import time

import numpy as np

ROTATE_BYTES = 200e6
SCAN_SHAPES = [
    (1, 65536, 512),
    (16, 16384, 128),
    (8, 2048, 1024),
    (4, 256, 512),
    (8, 256, 512),
    (8, 65536, 1536),
]
QUICK_SHAPES = [(1, 65536, 512), (16, 16384, 128), (8, 2048, 1024)]
TINY_SHAPES = [(2, 64, 8)]


class CaseTimeout(Exception):
    pass


class Context:
    def __init__(self, works, device, quick, tiny, peers, stream):
        self.works, self.device, self.quick, self.tiny = works, device, quick, tiny
        self.peers, self.stream = peers, stream
        self.case_seconds = 90 if quick else 180

    def emit(self, **record):
        self.stream.write(json.dumps(record) + "\n")
        self.stream.flush()

    def wants(self, work, peer):
        return work in self.works and (not self.peers or any(p in peer for p in self.peers))

    def shapes(self, full, quick=None):
        return TINY_SHAPES if self.tiny else (quick or full[:1]) if self.quick else full

    def case(self, work, peer, shape, dtype, run, bytes_moved=None, tolerance=1e-4, note=""):
        """Runs one measurement and prints its line, whatever becomes of it.

        `run` returns a dictionary with ms, ms_min, rel_error and, if it likes, further fields.
        """
        if not self.wants(work, peer):
            return
        record = {"work": work, "peer": peer, "shape": list(shape), "dtype": dtype}
        try:
            with alarm(self.case_seconds):
                result = run()
            note = "; ".join(n for n in (note, result.pop("note", "")) if n)
            error = result.get("rel_error")
            if error is not None and not error <= tolerance:
                record |= {"failed": True, "rel_error": finite(error), "tolerance": tolerance}
            else:
                record |= result
                if bytes_moved and result.get("ms"):
                    record["gb_s"] = bytes_moved / result["ms"] / 1e6
        except Exception as error:  # one peer's failure must not cost the others
            record["error"] = describe(error)
        if note:
            record["note"] = note
        self.emit(**{k: rounded(v) for k, v in record.items()})
        release()


@contextlib.contextmanager
def alarm(seconds):
    def ring(*_):
        raise CaseTimeout(f"no result in {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def describe(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' | '.join(lines[:3])}"[:400]


def finite(x):
    return x if math.isfinite(x) else str(x)


def rounded(x):
    return float(f"{x:.5g}") if isinstance(x, float) else x


def release():
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        with contextlib.suppress(Exception):  # a sticky device error shows up in the next case
            torch.cuda.empty_cache()


def input_sets(bytes_moved, ctx):
    if ctx.tiny:
        return 2
    return 1 if bytes_moved >= ROTATE_BYTES else min(64, math.ceil(ROTATE_BYTES / bytes_moved))


def repeats(ctx, estimate_s, budget_s=4.0):
    """At least 20 and 200 ms, cut for what takes longer than `budget_s` in all; 5 when quick."""
    if ctx.quick or ctx.tiny:
        return 5
    wanted = max(20, min(400, round(0.2 / max(estimate_s, 1e-6))))
    return max(3, min(wanted, round(budget_s / max(estimate_s, 1e-6))))


def measure(ctx, step, sets=1):
    """Times step(i) by device events, i running over the input sets.

    The outputs of the latest `sets` calls stay alive, so that neither inputs nor outputs of a small
    case are served by the cache.
    """
    import torch

    cuda = ctx.device == "cuda"
    sync = torch.cuda.synchronize if cuda else lambda: None
    kept = collections.deque(maxlen=sets if sets > 1 else 0)

    for i in range(3):
        begun = time.perf_counter()
        kept.append(step(i % sets))
        sync()
    count = repeats(ctx, time.perf_counter() - begun)
    for i in range(sets if sets > 1 else 0):  # fill the ring: no allocation while timing
        kept.append(step(i))
    sync()
    times = []
    if cuda:
        marks = [[torch.cuda.Event(enable_timing=True) for _ in "be"] for _ in range(count)]
        for i, (begin, end) in enumerate(marks):
            begin.record()
            kept.append(step(i % sets))
            end.record()
        sync()
        times = [begin.elapsed_time(end) for begin, end in marks]
    else:
        for i in range(count):
            begun = time.perf_counter()
            kept.append(step(i % sets))
            times.append((time.perf_counter() - begun) * 1e3)
    return {
        "ms": statistics.median(times),
        "ms_min": min(times),
        "repeats": count,
    }


def relative_rms(got, want):
    """The largest relative RMS error over pairs of arrays; NaN and infinity come through."""
    worst = 0.0
    for x, y in zip(got, want, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        scale = np.sqrt(np.mean(np.abs(y) ** 2))
        error = float(np.sqrt(np.mean(np.abs(x - y) ** 2)) / max(scale, 1e-300))
        if not error <= worst:
            worst = error
        if math.isnan(error):
            break
    return worst


def scan_oracle(a, b):
    """h of h_t = a_t h_{t-1} + b_t, time first, step by step in f64."""
    h = np.empty_like(b)
    state = np.zeros_like(b[0])
    for t in range(len(b)):
        state = a[t] * state + b[t]
        h[t] = state
    return h


def scan_oracle_gradients(a, h, g):
    """Gradients (torch's convention: conjugated) in a and b of a loss with dL/dh = g."""
    db = np.empty_like(g)
    state = np.zeros_like(g[0])
    for t in range(len(g) - 1, -1, -1):
        state = state + g[t]
        db[t] = state
        state = np.conj(a[t]) * state
    before = np.concatenate([np.zeros_like(h[:1]), h[:-1]])
    return db * np.conj(before), db


def scan_bytes(shape, kind, backward, width=4):
    """Minimal traffic: a, b -> h (3 words), and adjoint a, h, g -> da, db (5 words)."""
    words = width * (2 if kind == "complex" else 1)
    return math.prod(shape) * words * (8 if backward else 3)


def edges(shape, width=4):
    """(batch, channels) of two slices that are checked: the first and the last channels."""
    batch, _, channels = shape
    width = min(width, channels)
    return [(0, slice(0, width)), (batch - 1, slice(channels - width, channels))]
