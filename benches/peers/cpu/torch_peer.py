"""PyTorch's scan under torch.compile, and the reference: layer, training step, generation."""

import gc
import os
import warnings

# The compiler's own worker processes would take part in the timing.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
warnings.filterwarnings("ignore", message=".*use_reentrant.*")
warnings.filterwarnings("ignore", message=".*torch.jit.script.*")

import reference
import scans
import torch
from worker import Unavailable


def combine(x, y):
    return y[0] * x[0], y[0] * x[1] + y[1]


def associative(a, b):
    from torch._higher_order_ops.associative_scan import associative_scan

    return associative_scan(combine, (a, b), 1, combine_mode="generic")[1]


def scan(kind, element, shape, check):
    if kind != "forward" or element != "f32":
        raise Unavailable("torch.compile's scan is timed forward in f32")
    shape = scans.shape_of(shape)
    inputs = [torch.from_numpy(x) for x in scans.operands(shape, element)]
    torch._dynamo.reset()
    compiled = torch.compile(associative, dynamic=False)

    def run():
        with torch.no_grad():
            return compiled(*inputs[:2])

    if check:
        scans.check(shape, inputs, run())
    return run, 1


def work(parts, side, check):
    match (parts, side):
        case ["scan", kind, element, shape], "torch-associative":
            return scan(kind, element, shape, check)
        case ["layer", kind, tokens], "reference":
            return reference.layer(kind, int(tokens), check)
        case ["train", name], "reference" | "reference-checkpointed":
            return reference.train(name, side == "reference-checkpointed", check)
        case ["generate", "f32", "b1", prompt], "reference":
            return reference.generate(int(prompt.removeprefix("p")), check)
    raise Unavailable(f"torch has no {side} of {'/'.join(parts)}")


def release():
    torch._dynamo.reset()
    gc.collect()
