"""jax.lax.associative_scan, jitted, over (B, T, C)."""

import statistics
import time

import numpy as np

from . import common


def main(ctx, _unit):
    import jax
    import jax.numpy as jnp

    def combine(x, y):
        return x[0] * y[0], y[0] * x[1] + y[1]

    def scan(a, b):
        return jax.lax.associative_scan(combine, (a, b), axis=1)[1]

    def forward_backward(a, b, g):
        h, pull = jax.vjp(scan, a, b)
        return (h, *pull(g))

    def draw(shape, kind, seed):
        keys = jax.random.split(jax.random.PRNGKey(seed), 4)
        a = jax.nn.sigmoid(jax.random.normal(keys[0], shape) + 3)
        if kind == "complex":
            a = a * jnp.exp(2j * jnp.pi * jax.random.uniform(keys[1], shape))
        dtype = jnp.complex64 if kind == "complex" else jnp.float32
        return a, *(jax.random.normal(k, shape, dtype) for k in keys[2:])

    def cut(x, shape):
        columns = [np.asarray(x[batch, :, channels]) for batch, channels in common.edges(shape)]
        joined = np.concatenate(columns, axis=1)
        return joined.astype("complex128" if np.iscomplexobj(joined) else "float64")

    def run_case(shape, kind, backward):
        moved = common.scan_bytes(shape, kind, backward)
        count = common.input_sets(moved, ctx)
        make = jax.jit(draw, static_argnums=(0, 1))
        sets = [make(shape, kind, seed)[: 3 if backward else 2] for seed in range(count)]
        run = jax.jit(forward_backward if backward else scan)
        outs = run(*sets[0])

        a, b = (cut(x, shape) for x in sets[0][:2])
        want = [common.scan_oracle(a, b)]
        got = [cut(x, shape) for x in (outs if backward else (outs,))]
        if backward:
            # jax pulls back without conjugation: its gradients are the conjugates for conj(g)
            g = np.conj(cut(sets[0][2], shape))
            want += [np.conj(d) for d in common.scan_oracle_gradients(a, want[0], g)]
        error = common.relative_rms(got, want)
        del outs

        def batch(calls):
            begun = time.perf_counter()
            for i in range(calls):
                last = run(*sets[i % count])
            jax.block_until_ready(last)
            return (time.perf_counter() - begun) / calls

        batch(2)
        estimate = batch(2)
        inner = max(1, min(50, round(0.01 / estimate)))  # one wait for about 10 ms of work
        times = [batch(inner) * 1e3 for _ in range(common.repeats(ctx, estimate * inner))]
        return {
            "ms": statistics.median(times),
            "ms_min": min(times),
            "repeats": len(times),
            "rel_error": error,
            "note": f"host clock over {inner} queued calls on {jax.devices()[0].platform}",
        }

    if ctx.device == "cuda" and jax.devices()[0].platform != "gpu":
        raise RuntimeError(f"jax runs on {jax.devices()[0].platform} here")
    for backward in (False, True):
        work = "scan_forward_backward" if backward else "scan_forward"
        for kind in ("real", "complex"):
            for shape in ctx.shapes(common.SCAN_SHAPES, common.QUICK_SHAPES):
                ctx.case(
                    work,
                    "jax.lax.associative_scan, jitted",
                    shape,
                    "complex64" if kind == "complex" else "f32",
                    lambda: run_case(shape, kind, backward),  # noqa: B023
                    bytes_moved=common.scan_bytes(shape, kind, backward),
                )
                jax.clear_caches()
