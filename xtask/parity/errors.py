"""How far the reference's own f32 run is from its f64 run, and whether the f64 run is one to compare with."""

import numpy as np

from problem import Problem

# JSON has no infinity.
INFINITE = 1e30


def rms(x):
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0


def relative_rms(approximate, exact):
    with np.errstate(over="ignore", invalid="ignore"):
        error = rms(approximate.astype(np.float64) - exact)
    scale = rms(exact)
    if scale == 0.0:
        return 0.0 if error == 0.0 else INFINITE
    ratio = error / scale
    return min(ratio, INFINITE) if np.isfinite(ratio) else INFINITE


def relative_errors(approximate, exact):
    """The error of every quantity; both runs must have the same ones."""
    if approximate.keys() != exact.keys():
        odd = sorted(approximate.keys() ^ exact.keys())
        raise Problem(f"the f32 and the f64 run of the reference differ in what they yield: {odd}")
    return {name: relative_rms(approximate[name], exact[name]) for name in exact}


def demand_finite(quantities):
    bad = [name for name, x in quantities.items() if not np.isfinite(x).all()]
    if bad:
        raise Problem(f"the reference in f64 gives NaN or infinity for {', '.join(bad)}")


def typical_errors(runs):
    """The RMS of the errors of several runs, by quantity."""
    return {name: min(rms(np.array([run[name] for run in runs])), INFINITE) for name in runs[0]}
