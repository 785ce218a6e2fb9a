"""Inputs of the scan and its oracle: a loop in double precision over some channels."""

import numpy as np
from worker import Wrong

# Rounding errors of T steps add up like a random walk; see docs/numerics.md.
EPSILON, FACTOR = 2.0**-23, 16.0


def shape_of(text):
    return tuple(int(n) for n in text.split("x"))


def operands(shape, element):
    """Decays of modulus below 1, inputs around 0, and a gradient of the states."""
    draws = np.random.default_rng(1)

    def draw(low, high):
        real = draws.uniform(low, high, shape).astype(np.float32)
        if element == "f32":
            return real
        # Decays turn by little; inputs point anywhere.
        imag = draws.uniform(-0.1 if low > 0 else low, 0.1 if low > 0 else high, shape)
        return real + 1j * imag.astype(np.float32)

    return draw(0.9, 0.99), draw(-1.0, 1.0), draw(-1.0, 1.0)


def columns(x, shape):
    """The first and the last channels of the last sequence, time first, in double precision."""
    chosen = sorted({0, 1, shape[2] // 2, shape[2] - 1} & set(range(shape[2])))
    x = np.asarray(x[-1][:, np.asarray(chosen)])
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def states(a, b):
    h, state = np.empty_like(b), np.zeros_like(b[0])
    for t in range(len(b)):
        h[t] = state = a[t] * state + b[t]
    return h


def gradients(a, h, dh):
    """Of the decays and the inputs, in libtorch's convention for complex numbers."""
    db, state = np.empty_like(dh), np.zeros_like(dh[0])
    for t in range(len(dh) - 1, -1, -1):
        db[t] = dh[t] + state
        state = np.conj(a[t]) * db[t]
    before = np.concatenate([np.zeros_like(h[:1]), h[:-1]])
    return db * np.conj(before), db


def check(shape, inputs, h, grads=None, conjugated=False):
    """Raises where a state or a gradient is not the oracle's.

    `conjugated` says that the peer pulls back without conjugation, as JAX does; `inputs` then holds
    the gradient of the states as the peer was given it.
    """
    a, b, dh = (columns(x, shape) for x in inputs)
    want = {"h": states(a, b)}
    got = {"h": columns(h, shape)}
    if grads is not None:
        turn = np.conj if conjugated else np.asarray
        want["da"], want["db"] = (turn(d) for d in gradients(a, want["h"], turn(dh)))
        got["da"], got["db"] = (columns(d, shape) for d in grads)
    for name, value in want.items():
        error = np.abs(got[name] - value).max() / max(np.abs(value).max(), 1e-300)
        allowed = FACTOR * EPSILON * shape[1] ** 0.5
        if not error <= allowed:
            raise Wrong(f"{name}: relative error {error:.1e}, {allowed:.1e} is allowed")
