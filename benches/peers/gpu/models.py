"""The reference Transformer: training steps and greedy decoding."""

import contextlib
import copy
import warnings

import torch

from . import common, gate_loop

DIM, DEPTH, VOCABULARY = 512, 6, 256
PROMPT, NEW = 128, 64


def build(ctx, heads=None, checkpoint=True):
    from gateloop_transformer import Transformer

    warnings.filterwarnings("ignore", message=".*use_reentrant.*")
    torch.manual_seed(42)
    dim, depth = (32, 2) if ctx.tiny else (DIM, DEPTH)
    return Transformer(
        num_tokens=VOCABULARY,
        dim=dim,
        depth=depth,
        use_gate_looped_attn=True,
        gate_loop_heads=min(heads, dim) if heads else None,
        checkpoint_gate_looped_attn=checkpoint,
    )


def tokens(shape, seed, device):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, shape, generator=rng).to(device)


def autocast(ctx, precision):
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(ctx.device, torch.bfloat16)


def as_f32(model):
    """Casts the gates' projection to f32, which view_as_complex wants: autocast gives it bf16."""
    for mixer, _ in model.layers:
        mixer.fn.to_a[0].register_forward_hook(lambda _m, _i, out: out.float())


def channel_mixer(self, x, **_ablations):
    """Stands in for GateLoopedAttention.forward at max heads: the same values over (B, T, C)."""
    q, k, v = self.to_qkv(x).chunk(3, dim=-1)
    z, fraction = self.to_a[0](x), self.frac_gradient_state_transition
    z = z * fraction + z.detach() * (1 - fraction)
    return self.to_out(self.to_gates(x) * gate_loop.reference_channels(q, k, v, z))


@contextlib.contextmanager
def mixer(how):
    """The reference with its mixer as published, over channels, or left out of compilation."""
    from gateloop_transformer import GateLoopedAttention

    published = GateLoopedAttention.forward
    stand_ins = {"channels": channel_mixer, "uncompiled": torch.compiler.disable(published)}
    GateLoopedAttention.forward = stand_ins.get(how, published)
    try:
        yield
    finally:
        GateLoopedAttention.forward = published


def train_case(ctx, shape, heads, checkpoint, precision, compiled, patched):
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    batch, length = shape
    model = build(ctx, heads, checkpoint)
    exact = copy.deepcopy(model).double().eval()
    model = model.to(ctx.device)
    if patched:
        as_f32(model)
    probe = tokens((1, 64), 7, "cpu")
    with torch.no_grad(), autocast(ctx, precision):
        logits = model(probe.to(ctx.device))
        want = exact(probe)
    error = common.relative_rms([logits.double().cpu()], [want])
    del exact, logits

    if compiled:
        torch._dynamo.reset()
    loss_of = torch.compile(model, dynamic=False) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows = [tokens((batch, length + 1), seed, ctx.device) for seed in range(8)]
    losses = []

    def step(i):
        with autocast(ctx, precision):
            loss = loss_of(rows[i % len(rows)], return_loss=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())

    if ctx.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    result = common.measure(ctx, step, len(rows))
    if not torch.stack(losses).isfinite().all():
        error = float("nan")
    if ctx.device == "cuda":
        result["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    result["tokens_s"] = batch * length / result["ms"] * 1e3
    return result | {"rel_error": error}


MIXERS = {
    "published": "",
    "channels": ", mixer rewritten over channels",
    "uncompiled": ", mixer eager",
}


def train_cases(ctx, compiled):
    """(heads, checkpoint, precision, shape, mixer) of the cases, the telling ones first."""
    small, large = ((2, 32), (2, 64)) if ctx.tiny else ((4, 256), (32, 1024))
    few = ctx.quick or ctx.tiny
    checkpoints = (False,) if few else (False, True)
    grid = [(None, c, p, s) for p in ("bf16", "f32") for s in (large, small) for c in checkpoints]
    if compiled:
        cases = [(*case, "channels") for case in grid if not case[1]]
        cases += [(None, False, "bf16", s, "uncompiled") for s in (large, small)]
        cases += [(8, True, "bf16", small, "uncompiled")]
        return cases + [(None, c, "f32", small, "published") for c in checkpoints]
    if not few:
        grid += [(None, False, "tf32", s) for s in (large, small)]
        grid += [(8, True, p, large) for p in ("bf16", "f32")]
    grid += [(8, True, p, small) for p in ("bf16", "f32")]
    return [(*case, "published") for case in grid]


def train(ctx, unit):
    compiled = unit == "compiled"
    for heads, checkpoint, precision, shape, how in train_cases(ctx, compiled):
        name = (
            f"reference Transformer, {'torch.compile' if compiled else 'eager'}, "
            f"{f'{heads} heads' if heads else 'max heads'}, "
            f"checkpointing {'on' if checkpoint else 'off'}{MIXERS[how]}"
        )
        bf16 = precision == "bf16"
        # under autocast as published, and with the gates' projection in f32
        for patched in (False, True) if bf16 and not compiled else (bf16,):
            with mixer(how):
                ctx.case(
                    "train_step",
                    name + (", gates' projection cast to f32" if patched else ""),
                    (*shape, 32 if ctx.tiny else DIM),
                    f"{precision} autocast" if bf16 else precision,
                    lambda: train_case(ctx, shape, heads, checkpoint, precision, compiled, patched),  # noqa: B023
                    tolerance={"f32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}[precision],
                    note="AdamW; shape is batch, tokens, dim; rel_error: logits against f64",
                )


def decode_case(ctx, padded):
    prompt_length, new = (8, 4) if ctx.tiny else (PROMPT, NEW)
    model = build(ctx).eval()
    exact = copy.deepcopy(model).double()
    model = model.to(ctx.device)
    prompt = tokens((1, prompt_length), 7, "cpu")
    if padded:
        torch._dynamo.reset()
        forward = torch.compile(model, dynamic=False, mode=padded)

    def generate(ids):
        if not padded:
            for _ in range(new):
                ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], 1)
            return ids
        # a causal model may be given rows to come: one length, one compilation
        ids = torch.nn.functional.pad(ids, (0, new))
        for t in range(prompt_length, prompt_length + new):
            ids[:, t] = forward(ids)[:, t - 1].argmax(-1)
        return ids

    with torch.no_grad():
        result = common.measure(ctx, lambda _: generate(prompt.to(ctx.device)))
        ids = generate(prompt.to(ctx.device))
        got = (forward if padded else model)(ids)
        error = common.relative_rms([got.double().cpu()], [exact(ids.cpu())])
    result["ms"] /= new
    result["ms_min"] /= new
    return result | {"rel_error": error}


def decode(ctx, unit):
    cases = {
        "eager": [("eager", None)],
        "compiled": [
            ("torch.compile, padded to one length", "default"),
            ("torch.compile with CUDA graphs, padded to one length", "reduce-overhead"),
        ],
    }
    for name, padded in cases[unit]:
        how = "channels" if padded else "published"
        with mixer(how):
            ctx.case(
                "decode",
                f"reference Transformer, {name}{MIXERS[how]}",
                (1, PROMPT, DIM),
                "f32",
                lambda: decode_case(ctx, padded),  # noqa: B023
                note=f"ms a token, {NEW} greedy tokens after {PROMPT}; it recomputes the whole sequence",
            )
