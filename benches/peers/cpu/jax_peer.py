"""JAX's scans, jitted: the work-efficient one and the loop."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import scans
from worker import Unavailable


def combine(x, y):
    return y[0] * x[0], y[0] * x[1] + y[1]


def associative(a, b):
    return jax.lax.associative_scan(combine, (a, b), axis=1)[1]


def loop(a, b):
    def step(h, ab):
        h = ab[0] * h + ab[1]
        return h, h

    time_first = (jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1))
    return jnp.swapaxes(jax.lax.scan(step, jnp.zeros_like(b[:, 0]), time_first)[1], 0, 1)


SCANS = {"jax-associative": associative, "jax-scan": loop}


def work(parts, side, check):
    if parts[0] != "scan" or side not in SCANS:
        raise Unavailable(f"JAX has no {side} of {'/'.join(parts)}")
    _, kind, element, shape = parts
    shape, scan = scans.shape_of(shape), SCANS[side]

    def forward(a, b, _dh):
        return scan(a, b)

    def gradient(a, b, dh):
        h, pull = jax.vjp(scan, a, b)
        return h, *pull(dh)

    inputs = [jax.device_put(x) for x in scans.operands(shape, element)]
    compiled = jax.jit(gradient if kind == "gradient" else forward)
    if check:
        out = compiled(*inputs)
        h, *grads = out if kind == "gradient" else (out,)
        scans.check(shape, inputs, h, grads or None, conjugated=True)
        del out, h, grads
    return (lambda: jax.block_until_ready(compiled(*inputs))), 1


def release():
    jax.clear_caches()
