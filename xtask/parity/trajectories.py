"""Trains small models with the PyTorch reference, in f32 and in f64, and writes every loss and the end.

Each run has the same windows of enwik8 and the same optimizer: Adam behind a clipped gradient norm.
"""

import argparse
import os
import sys
import time

import numpy as np

import case_file
import environment
from draws import generator, seed_of
from lines import print_line
from problem import Problem

SIZE = {"num_tokens": 256, "dim": 64, "depth": 2}
MODELS = {
    "max-heads": SIZE,
    "heads-8": {**SIZE, "gate_loop_heads": 8},
    "attention": {**SIZE, "use_gate_looped_attn": False, "dim_head": 16, "heads": 4, "rotary_emb": True},
    "simple": {**SIZE, "layers": ["simple_gate_loop"]},
}
OPTIMIZER = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "clip_norm": 0.5}
BATCH, LENGTH = 4, 128
TRAINING_BYTES = 90_000_000


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--enwik8", required=True, metavar="FILE", help="text to train on; the first 90 MB are used")
    parser.add_argument("--out", required=True, metavar="DIR", help="where trajectory-NAME.safetensors are written")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="updates a run (100)")
    parser.add_argument("--filter", default="", metavar="TEXT", help=f"only names with this: {', '.join(MODELS)}")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of PyTorch (1)")
    args = parser.parse_args()
    if args.steps < 1 or args.threads < 1:
        parser.error("--steps and --threads must be at least 1")
    return args


def select(text):
    names = [name for name in MODELS if text in name]
    if not names:
        print(f"no trajectory has {text!r} in its name; the names: {', '.join(MODELS)}", file=sys.stderr)
        sys.exit(2)
    return names


def draw_windows(path, steps):
    """Token ids of `steps` batches, each window from a place drawn at random."""
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")[:TRAINING_BYTES]
    except (OSError, ValueError) as error:
        raise Problem(f"{path}: {error}") from error
    if len(data) <= LENGTH:
        raise Problem(f"{path}: {len(data)} bytes are too few for a window of {LENGTH + 1}")
    starts = generator(seed_of("trajectory"), "windows").integers(0, len(data) - LENGTH, (steps, BATCH))
    return data[starts[..., None] + np.arange(LENGTH + 1)].astype(np.int64)


def build(name):
    import torch

    from reference import torch_models

    torch.manual_seed(seed_of(f"trajectory-{name}"))
    return torch_models.build(MODELS[name])


def train(model, windows):
    """The loss before each update; the model is left as the last one leaves it."""
    import torch

    betas = (OPTIMIZER["beta1"], OPTIMIZER["beta2"])
    adam = torch.optim.Adam(model.parameters(), lr=OPTIMIZER["lr"], betas=betas, eps=OPTIMIZER["eps"])
    losses = []
    for batch in torch.from_numpy(windows):
        loss = model(batch, return_loss=True)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER["clip_norm"])
        adam.step()
        losses.append(loss.item())
    if not np.isfinite(losses).all():
        raise Problem("the reference's loss is not finite")
    return np.array(losses)


def values_of(model):
    return {name: x.detach().numpy().copy() for name, x in model.state_dict().items()}


def trajectory(name, windows):
    """The tensors of a file. Both runs begin with the same f32 weights."""
    model, model64 = build(name), build(name).double()
    initial = values_of(model)
    losses, losses64 = train(model, windows), train(model64, windows)
    tensors = {"input.windows": windows, "expect.losses": losses, "expect.losses64": losses64}
    tensors |= case_file.prefixed("param", initial)
    tensors |= case_file.prefixed("expect.final", values_of(model))
    tensors |= case_file.prefixed("expect.final64", values_of(model64))
    return tensors


def metadata(name, steps):
    return {
        "name": name,
        "kind": "trajectory",
        "framework": "pytorch",
        "options": MODELS[name],
        "optimizer": OPTIMIZER,
        "steps": steps,
    }


def main():
    args = arguments()
    names = select(args.filter)
    environment.prepare(args.threads)
    windows = draw_windows(args.enwik8, args.steps)
    for index, name in enumerate(names, start=1):
        begun = time.perf_counter()
        tensors = trajectory(name, windows)
        case_file.write(os.path.join(args.out, f"trajectory-{name}.safetensors"), metadata(name, args.steps), tensors)
        seconds = round(time.perf_counter() - begun, 3)
        last = float(tensors["expect.losses"][-1])
        print_line({"trajectory": name, "index": index, "total": len(names), "seconds": seconds, "last_loss": last})


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(f"error: {problem}")
