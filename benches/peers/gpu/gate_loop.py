"""The GateLoop operator from q, k, v and the gates: one channel a head, and heads of 64."""

import math

import torch

from . import common

SHAPES = [(8, 2048, 1024), (1, 16384, 512), (8, 1024, 512)]
HEAD_SHAPES = [(4, 4096, 8, 64)]  # B, T, heads, head_dim


def reference_max_heads(q, k, v, z):
    """y (B, T, C) by the reference's operator, z (B, T, 2C) holding pairs (re, im)."""
    from einops import rearrange
    from gateloop_transformer.gateloop_transformer import gate_loop_operator

    channels = q.shape[-1]
    q, k, v = (rearrange(x, "b n (h d) -> (b h) n d", h=channels) for x in (q, k, v))
    z = torch.view_as_complex(
        rearrange(z, "b n (h c) -> (b h) n 1 1 c", h=channels, c=2).contiguous()
    )
    a = torch.polar(z.abs().sigmoid(), z.angle())
    return rearrange(gate_loop_operator(q, k, v, a), "(b h) n d -> b n (h d)", h=channels)


def reference_channels(q, k, v, z):
    """The same values by the reference's scan over (B, T, C), without its layout of heads.

    That layout has axes of size one in complex tensors, which torch.compile of 2.11 fails to lower.
    """
    from gateloop_transformer.associative_scan import associative_scan

    def combine(x, y):
        return y[0] * x[0], y[0] * x[1] + y[1]

    z = torch.view_as_complex(z.unflatten(-1, (-1, 2)))
    a = torch.polar(z.abs().sigmoid(), z.angle())
    return q * associative_scan(combine, (a, (k * v) + 0j))[1].real


def draw(shape, seed, device):
    """q, k, v, z and dL/dy; |z| = |N(3, 1)| and a random phase."""
    rng = torch.Generator(device).manual_seed(seed)
    q, k, v, g = (torch.randn(shape, generator=rng, device=device) for _ in range(4))
    size = torch.randn(shape, generator=rng, device=device) + 3
    phase = torch.rand(shape, generator=rng, device=device) * (2 * math.pi)
    return [q, k, v, torch.view_as_real(torch.polar(size.abs(), phase)).flatten(-2)], g


def check(ins, g, outs, shape):
    def columns(x, width=1):
        cut = [
            x.detach()[b, :, slice(c.start * width, c.stop * width)].double().cpu()
            for b, c in common.edges(shape)
        ]
        return torch.cat(cut, dim=1)

    def oracle_steps(a, b):
        return torch.from_numpy(common.scan_oracle(a.numpy(), b.numpy()))

    q, k, v = (columns(x) for x in ins[:3])
    z = columns(ins[3], 2).requires_grad_(g is not None)
    pairs = torch.view_as_complex(z.unflatten(-1, (-1, 2)))
    a = torch.polar(pairs.abs().sigmoid(), pairs.angle())
    h = oracle_steps(a.detach(), (k * v) + 0j)
    want = [q * h.real]
    if g is not None:
        g = columns(g)
        da, db = common.scan_oracle_gradients(a.detach().numpy(), h.numpy(), (g * q + 0j).numpy())
        (dz,) = torch.autograd.grad(a, z, torch.from_numpy(da))
        db = torch.from_numpy(db).real
        want += [g * h.real, db * v, db * k, dz]
    got = [columns(x, 2 if i == 4 else 1) for i, x in enumerate(outs)]
    return common.relative_rms(got, want)


def steps(run, sets, backward):
    def step(i):
        ins, g = sets[i]
        with torch.set_grad_enabled(backward):
            y = run(*ins)
            if not backward:
                return (y,)
            return (y, *(d.contiguous() for d in torch.autograd.grad(y, ins, g)))

    return step


def max_heads_case(ctx, run, compiled, shape, backward, moved):
    if compiled:
        torch._dynamo.reset()
        run = torch.compile(run, dynamic=False)
    count = common.input_sets(moved, ctx)
    sets = []
    for seed in range(count):
        ins, g = draw(shape, seed, ctx.device)
        sets.append(([x.requires_grad_(backward) for x in ins], g if backward else None))
    step = steps(run, sets, backward)
    outs = step(0)
    error = check(*sets[0], outs, shape)
    del outs
    return common.measure(ctx, step, count) | {"rel_error": error}


def main(ctx, unit):
    """One channel a head: q, k, v, z -> y moves 6 words, the adjoint 11."""
    compiled = unit == "compiled"
    how = "torch.compile" if compiled else "eager"
    for name, run in (
        ("reference operator", reference_max_heads),
        ("reference scan over channels, no head layout", reference_channels),
    ):
        for backward in (False, True):
            for shape in ctx.shapes(SHAPES):
                moved = math.prod(shape) * 4 * (17 if backward else 6)
                ctx.case(
                    "gate_loop_forward_backward" if backward else "gate_loop_forward",
                    f"{name}, {how}",
                    shape,
                    "f32",
                    lambda: max_heads_case(ctx, run, compiled, shape, backward, moved),  # noqa: B023
                    bytes_moved=moved,
                    note="no checkpointing" if backward else "",
                )


def heads_oracle(q, k, v, a, g):
    """y and gradients of q, k, v (T, D) and a (T,), by the recurrence in f64 under autograd."""
    ins = [x.detach().cpu() for x in (q, k, v, a)]
    ins = [
        x.to(torch.complex128 if x.is_complex() else torch.float64).requires_grad_() for x in ins
    ]
    q, k, v, a = ins
    state, rows = torch.zeros(k.shape[1], v.shape[1], dtype=a.dtype), []
    for t in range(len(q)):
        state = a[t] * state + torch.outer(k[t], v[t])
        rows.append(q[t] @ (state.real if state.is_complex() else state))
    y = torch.stack(rows)
    grads = torch.autograd.grad(y, ins, g.detach().cpu().double())
    return [x.detach().resolve_conj() for x in (y, *grads)]


def heads_runs():
    from fla.ops.simple_gla import chunk_simple_gla

    def double(q, k, phase):
        turned = phase.cumsum(1).unsqueeze(-1)
        cos, sin = turned.cos(), turned.sin()
        return [torch.cat([x * cos, x * sin], -1).to(x.dtype) for x in (q, k)]

    def kernel(q2, k2, v, decay):
        return chunk_simple_gla(q2, k2, v, decay, scale=1.0)[0]

    def whole(q, k, v, decay, phase):
        return kernel(*double(q, k, phase), v, decay)

    return double, kernel, whole


def reference_heads(q, k, v, decay, phase):
    from einops import rearrange
    from gateloop_transformer.gateloop_transformer import gate_loop_operator

    heads = q.shape[2]
    q, k, v = (rearrange(x, "b n h d -> (b h) n d") for x in (q, k, v))
    a = rearrange(torch.polar(decay.exp(), phase), "b n h -> (b h) n 1 1")
    return rearrange(gate_loop_operator(q, k, v, a), "(b h) n d -> b n h d", h=heads)


def draw_heads(shape, seed, device, dtype):
    """q, k, v, log |a|, the phase of a step, and dL/dy."""
    rng = torch.Generator(device).manual_seed(seed)
    q, k, v, g = (torch.randn(shape, generator=rng, device=device).to(dtype) for _ in range(4))
    decay = torch.nn.functional.logsigmoid(torch.randn(shape[:3], generator=rng, device=device) + 3)
    phase = (torch.rand(shape[:3], generator=rng, device=device) * 2 - 1) * math.pi
    return [q * shape[-1] ** -0.5, k, v, decay, phase], g


def heads_case(ctx, run, prepare, shape, dtype, backward, moved):
    def prepared(shape, seed):
        ins, g = draw_heads(shape, seed, ctx.device, dtype)
        if prepare:
            q, k, v, decay, phase = ins
            ins = [*prepare(q, k, phase), v, decay]
        return [x.detach().requires_grad_(backward) for x in ins], g

    ins, g = prepared((1, 256, 2, shape[3]), 99)
    outs = steps(run, [(ins, g)], backward)(0)
    error = 0.0
    for head in range(2):
        q, k, v, decay, *phase = (x.detach()[0, :, head] for x in ins)
        log = decay.double()
        a = torch.complex(log, phase[0].double()).exp() if phase else log.exp()
        y, dq, dk, dv, da = heads_oracle(q, k, v, a, g[0, :, head])
        want = [y]
        if backward:
            # with da = dL/d conj(a): d log|a| = Re(da conj a), d phase = Im(da conj a)
            turned = (da * a.cpu().conj()).resolve_conj()
            want += [dq, dk, dv, turned.real] + ([turned.imag] if phase else [])
        got = [x.detach()[0, :, head].double().cpu() for x in outs]
        error = max(error, common.relative_rms(got, want))
    del ins, g, outs

    count = common.input_sets(moved, ctx)
    sets = [prepared(shape, seed) for seed in range(count)]
    return common.measure(ctx, steps(run, sets, backward), count) | {"rel_error": error}


def heads(ctx, unit):
    cases = []
    if unit == "fla":
        double, kernel, whole = heads_runs()
        for dtype in (torch.bfloat16, torch.float32):
            name = "fla 0.6.0 chunk_simple_gla, K doubled"
            cases.append((f"{name}, kernel alone", kernel, double, dtype))
            cases.append((f"{name}, rotation included", whole, None, dtype))
    else:
        cases.append(("reference operator, eager", reference_heads, None, torch.float32))
    for name, run, prepare, dtype in cases:
        for backward in (False, True):
            batch, length, count, dim = shape = (1, 64, 2, 16) if ctx.tiny else HEAD_SHAPES[0]
            # forward q, k, v, a -> y; adjoint q, k, v, a, dy -> dq, dk, dv, da
            words, gates = (11, 6) if backward else (4, 2)
            moved = batch * length * count * (words * dim * dtype.itemsize + gates * 4)
            ctx.case(
                "heads_forward_backward" if backward else "heads_forward",
                name,
                (batch, length, count * dim),
                "f32" if dtype is torch.float32 else "bf16",
                lambda: heads_case(ctx, run, prepare, shape, dtype, backward, moved),  # noqa: B023
                bytes_moved=moved,
                tolerance=1e-4 if unit != "fla" else 5e-3 if dtype is torch.float32 else 4e-2,
                note=f"{count} heads of {dim}; checked at T=256",
            )
