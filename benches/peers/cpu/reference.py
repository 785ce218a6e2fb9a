"""The PyTorch reference, package gateloop-transformer; each answer is compared with double precision."""

import copy

import torch
from worker import Wrong

DIM, DEPTH, VOCABULARY, BATCH, TOKENS = 512, 6, 256, 4, 256
CHECKED = 256


def compare(single, double, allowed=1e-4):
    """Relative to the largest; the reference's own rounding is some 1e-6."""
    double = double.detach()
    error = ((single.detach().double() - double).abs().max() / double.abs().max()).item()
    if not error <= allowed:
        raise Wrong(f"relative error {error:.1e}, {allowed:.1e} is allowed")


def layer(kind, tokens, check):
    from gateloop_transformer.simplified_gate_loop import SimpleGateLoopLayer

    torch.manual_seed(42)
    module = SimpleGateLoopLayer(DIM)
    x = torch.randn(1, tokens, DIM)
    if check:
        # The layer is causal, so its first tokens stand alone.
        head = x[:, :CHECKED]
        with torch.no_grad():
            compare(module(head), copy.deepcopy(module).double()(head.double()))
    if kind == "forward":

        def run():
            with torch.no_grad():
                module(x)

        return run, 1
    x.requires_grad_()
    inputs = [*module.parameters(), x]
    return (lambda: torch.autograd.grad(module(x).sum(), inputs)), 1


def build(name, checkpointed):
    from gateloop_transformer import Transformer

    torch.manual_seed(42)
    heads = None if name == "max-heads" else int(name.removesuffix("-heads"))
    return Transformer(
        num_tokens=VOCABULARY,
        dim=DIM,
        depth=DEPTH,
        use_gate_looped_attn=True,
        gate_loop_heads=heads,
        checkpoint_gate_looped_attn=checkpointed,
    )


def train(name, checkpointed, check):
    model = build(name, checkpointed)
    windows = torch.randint(VOCABULARY, (BATCH, TOKENS + 1))
    if check:
        with torch.no_grad():
            ids = windows[:1, :64]
            compare(model(ids), copy.deepcopy(model).double()(ids))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.99))

    def run():
        loss = model(windows, return_loss=True)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

    return run, 1


def generate(prompt, check):
    """One token after the prompt: the reference keeps no state and computes everything again."""
    model = build("max-heads", False).eval()
    ids = torch.randint(VOCABULARY, (1, prompt))
    if check:
        with torch.no_grad():
            compare(model(ids[:, :64]), copy.deepcopy(model).double()(ids[:, :64]))

    def run():
        with torch.no_grad():
            model(ids)[:, -1].argmax(-1)

    return run, 1
