"""The linear recurrence over (B, T, C): torch's associative_scan, the reference's, and kernels."""

import dataclasses
from collections.abc import Callable

import torch

from . import common

# fewer shapes for what compiles a graph of 2 log2(T) passes at each
FEW_SHAPES = ((1, 65536, 512), (8, 2048, 1024), (8, 256, 512))


@dataclasses.dataclass
class Peer:
    name: str
    run: Callable  # (*a, *b) -> h, each a tuple of one tensor, or of two planes when `planes`
    kinds: tuple = ("real", "complex")
    planes: bool = False  # complex numbers as separate tensors of real and imaginary parts
    channel_first: bool = False  # takes and gives (B, C, T)
    log_decay: bool = False  # run(log a, b)
    dtype: torch.dtype = torch.float32
    compiled: bool = False
    note: str = ""
    shapes: tuple = ()


def draw(shape, kind, seed, device, dtype=torch.float32):
    """a, b and dL/dh: |a| = sigmoid(N(3, 1)), times a random phase when complex."""
    rng = torch.Generator(device).manual_seed(seed)
    a = torch.randn(shape, generator=rng, device=device).add_(3).sigmoid_()
    element = torch.complex64 if kind == "complex" else torch.float32
    if kind == "complex":
        phase = torch.rand(shape, generator=rng, device=device).mul_(2 * torch.pi)
        a = torch.polar(a, phase)
        del phase
    b = torch.randn(shape, generator=rng, device=device, dtype=element)
    g = torch.randn(shape, generator=rng, device=device, dtype=element)
    return (a, b, g) if kind == "complex" else (a.to(dtype), b.to(dtype), g.to(dtype))


def pack(peer, kind, a, b, g):
    if peer.log_decay:
        a = a.float().log().to(peer.dtype)
    if peer.planes and kind == "complex":
        split = lambda x: (x.real.contiguous(), x.imag.contiguous())  # noqa: E731
        return (*split(a), *split(b)), split(g)
    return (a, b), (g,)


def slices(peer, kind, tensors, places):
    """The checked slices of a packed tuple as f64 arrays (T, n), planes joined again."""
    planes = peer.planes and kind == "complex"
    joined = (
        list(zip(tensors[::2], tensors[1::2], strict=True)) if planes else [(x,) for x in tensors]
    )
    arrays = []
    for parts in joined:
        columns = []
        for batch, channels in places:
            if peer.channel_first:
                cut = [p.detach()[batch, channels].T for p in parts]
            else:
                cut = [p.detach()[batch, :, channels] for p in parts]
            cut = [(c if c.is_complex() else c.double()).cpu().numpy() for c in cut]
            columns.append(cut[0] + 1j * cut[1] if planes else cut[0])
        joined_columns = common.np.concatenate(columns, axis=1)
        wide = "complex128" if common.np.iscomplexobj(joined_columns) else "float64"
        arrays.append(joined_columns.astype(wide))
    return arrays


def check(peer, kind, ins, gs, outs, shape):
    places = common.edges(shape)
    a, b = slices(peer, kind, ins, places)
    decay = common.np.exp(a) if peer.log_decay else a
    want = [common.scan_oracle(decay, b)]
    if gs is not None:
        da, db = common.scan_oracle_gradients(decay, want[0], slices(peer, kind, gs, places)[0])
        want += [da * decay if peer.log_decay else da, db]
    return common.relative_rms(slices(peer, kind, outs, places), want)


def run_case(ctx, peer, shape, kind, backward, moved):
    run = peer.run
    if peer.compiled:
        torch._dynamo.reset()
        run = torch.compile(run, dynamic=False)
    made = (shape[0], shape[2], shape[1]) if peer.channel_first else shape
    count = common.input_sets(moved, ctx)
    sets = []
    for seed in range(count):
        ins, gs = pack(peer, kind, *draw(made, kind, seed, ctx.device, peer.dtype))
        sets.append(([x.requires_grad_(backward) for x in ins], gs if backward else None))
        del ins, gs

    def step(i):
        ins, gs = sets[i]
        with torch.set_grad_enabled(backward):
            outs = run(*ins)
            if not backward:
                return outs
            grads = torch.autograd.grad(outs, ins, gs)
        return (*outs, *(d.contiguous() for d in grads))

    outs = step(0)
    error = check(peer, kind, *sets[0], outs, shape)
    del outs
    return common.measure(ctx, step, count) | {"rel_error": error}


def run_peer(ctx, peer):
    name = {torch.float32: "f32", torch.bfloat16: "bf16"}[peer.dtype]
    quick = None if peer.channel_first else common.QUICK_SHAPES
    shapes = ctx.shapes(peer.shapes or common.SCAN_SHAPES, quick)
    for backward in (False, True):
        work = "scan_forward_backward" if backward else "scan_forward"
        for kind in peer.kinds:
            for shape in shapes:
                moved = common.scan_bytes(shape, kind, backward, peer.dtype.itemsize)
                ctx.case(
                    work,
                    peer.name,
                    shape,
                    "complex64" if kind == "complex" else name,
                    lambda: run_case(ctx, peer, shape, kind, backward, moved),  # noqa: B023
                    bytes_moved=moved,
                    tolerance=1e-4 if peer.dtype is torch.float32 else 3e-2,
                    note=peer.note,
                )


def torch_peers(ctx, compiled):
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(x, y):
        return x[0] * y[0], y[0] * x[1] + y[1]

    def combine_planes(x, y):
        (ar, ai, br, bi), (cr, ci, dr, di) = x, y
        return (
            ar * cr - ai * ci,
            ar * ci + ai * cr,
            cr * br - ci * bi + dr,
            cr * bi + ci * br + di,
        )

    def scan(mode):
        return lambda a, b: (associative_scan(combine, (a, b), 1, combine_mode=mode)[1],)

    def scan_planes(mode):
        return lambda *x: tuple(associative_scan(combine_planes, x, 1, combine_mode=mode)[2:])

    if not compiled:
        return [Peer("torch associative_scan generic, eager", scan("generic"))]
    peers = []
    for mode, shapes in (("pointwise", ()), ("generic", FEW_SHAPES)):
        name = f"torch associative_scan {mode}, torch.compile"
        note = "real and imaginary parts in separate tensors"
        peers += [
            Peer(name, scan(mode), ("real",), compiled=True, shapes=shapes),
            Peer(
                name,
                scan_planes(mode),
                ("complex",),
                planes=True,
                compiled=True,
                shapes=shapes,
                note=note,
            ),
        ]
    return peers


def reference_peers():
    from gateloop_transformer.associative_scan import associative_scan

    def combine(x, y):
        return y[0] * x[0], y[0] * x[1] + y[1]

    def scan(a, b):
        return (associative_scan(combine, (a, b))[1],)

    return [
        Peer("reference associative_scan, eager", scan),
        Peer("reference associative_scan, torch.compile", scan, compiled=True, shapes=FEW_SHAPES),
    ]


def accelerated_peers(variant):
    if variant == "warp":
        from accelerated_scan.warp import scan as kernel

        kinds = ("real",)
    elif variant == "scalar":
        from accelerated_scan.scalar import scan as kernel

        kinds = ("real",)
    else:
        from accelerated_scan.complex import scan as kernel

        kinds = ("complex",)

    def own(a, b):
        return (kernel(a, b),)

    def transposed(a, b):
        a, b = (x.transpose(1, 2).contiguous() for x in (a, b))
        return (kernel(a, b).transpose(1, 2).contiguous(),)

    name = f"accelerated-scan 0.3.1 {variant}"
    big = (8, 65536, 1536)
    own_shapes = (big, (8, 2048, 1024), (1, 65536, 512))
    return [
        Peer(
            f"{name}, [B,C,T]",
            own,
            kinds,
            channel_first=True,
            shapes=own_shapes,
            note="its own layout; shape still given as B,T,C",
        ),
        Peer(f"{name}, channel-last with transposes", transposed, kinds),
    ]


def hgrn_peers():
    from fla.ops.hgrn import chunk_hgrn

    def scan(g, x):
        return (chunk_hgrn(x, g)[0],)

    note = "takes log a"
    return [
        Peer("fla 0.6.0 chunk_hgrn", scan, ("real",), log_decay=True, note=note),
        Peer(
            "fla 0.6.0 chunk_hgrn",
            scan,
            ("real",),
            log_decay=True,
            dtype=torch.bfloat16,
            note=note + ", in bf16 as b is",
        ),
    ]


def main(ctx, unit):
    makers = {
        "torch-compile": lambda: torch_peers(ctx, True),
        "torch-eager": lambda: torch_peers(ctx, False),
        "reference": reference_peers,
        "accelerated-warp": lambda: accelerated_peers("warp"),
        "accelerated-scalar": lambda: accelerated_peers("scalar"),
        "accelerated-complex": lambda: accelerated_peers("complex"),
        "fla-hgrn": hgrn_peers,
    }
    for peer in makers[unit]():
        run_peer(ctx, peer)


def copy(ctx, _unit):
    size = 1 << (20 if ctx.tiny else 30)

    def run():
        source = torch.randn(size // 4, device=ctx.device)
        target = torch.empty_like(source)
        result = common.measure(ctx, lambda _: target.copy_(source))
        return result | {"rel_error": 0.0 if torch.equal(source, target) else 1.0}

    ctx.case("copy", "torch device-to-device copy", [size], "f32", run, bytes_moved=2 * size)
