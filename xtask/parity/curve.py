"""Trains the PyTorch reference as a configuration of ours says, and records it as a run of ours.

    pip install torch==2.11.0 gateloop-transformer==0.2.5 numpy
    python xtask/parity/curve.py --config configs/quick.toml --enwik8 path/to/enwik8 --out runs/reference

The run folder holds metrics.jsonl, so that `gateloop plot` draws it beside runs of `gateloop train`. Weights are the
reference's own random ones, windows are drawn at random, validation windows are those of `gateloop train`.
"""

import argparse
import json
import math
import os
import sys
import time
import tomllib

import numpy as np

import environment
from draws import generator, seed_of
from problem import Problem

TRAINING_BYTES, VALIDATION_BYTES = 90_000_000, 5_000_000
TRAIN = {
    "batch_size": 4, "grad_accum": 4, "seq_len": 256, "lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8,
    "weight_decay": 0.0, "clip_norm": 0.5, "validate_windows": 32,
}


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="configuration of `gateloop train`")
    parser.add_argument("--enwik8", required=True, metavar="FILE", help="text to train on")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of weights and windows (1)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="updates (100)")
    parser.add_argument("--validate-every", type=int, default=20, metavar="N", help="updates between records (20)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of PyTorch (1)")
    args = parser.parse_args()
    if min(args.steps, args.validate_every, args.threads) < 1:
        parser.error("--steps, --validate-every and --threads must be at least 1")
    return args


def load(path):
    try:
        with open(path, "rb") as file:
            config = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Problem(f"{path}: {error}") from error
    train = {**TRAIN, **{key: value for key, value in config.get("train", {}).items() if key in TRAIN}}
    if train["weight_decay"]:
        raise Problem(f"{path}: weight_decay is not 0, as it is in the reference's training script")
    return config.get("model", {}), train


def text(path):
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise Problem(f"{path}: {error}") from error
    if len(data) < TRAINING_BYTES + VALIDATION_BYTES:
        raise Problem(f"{path}: {len(data)} bytes are not enwik8")
    return data[:TRAINING_BYTES], data[TRAINING_BYTES:TRAINING_BYTES + VALIDATION_BYTES]


def windows(data, starts, length):
    import torch

    return torch.from_numpy(data[starts[:, None] + np.arange(length + 1)].astype(np.int64))


def validate(model, batches):
    import torch

    with torch.no_grad():
        return float(np.mean([model(batch, return_loss=True).item() for batch in batches]))


def train(args, model_options, options, record):
    import torch

    from reference import torch_models

    torch.manual_seed(args.seed)
    model = torch_models.build({"num_tokens": 256, "dim": 512, "depth": 6, **model_options})
    betas = (options["beta1"], options["beta2"])
    adam = torch.optim.Adam(model.parameters(), lr=options["lr"], betas=betas, eps=options["eps"])
    training, validation = text(args.enwik8)
    length, batch, micro_batches = options["seq_len"], options["batch_size"], options["grad_accum"]
    # Evenly spaced from the first to the last.
    count, last = options["validate_windows"], len(validation) - length - 1
    places = np.array([index * last // max(count - 1, 1) for index in range(count)])
    fixed = [windows(validation, places[i:i + batch], length) for i in range(0, count, batch)]
    draw = generator(seed_of("curve") + args.seed, "windows")
    begun, since = time.perf_counter(), []
    for step in range(1, args.steps + 1):
        for _ in range(micro_batches):
            starts = draw.integers(0, len(training) - length, batch)
            loss = model(windows(training, starts, length), return_loss=True)
            (loss / micro_batches).backward()
            since.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
        adam.step()
        adam.zero_grad()
        if step % args.validate_every == 0 or step == args.steps:
            nats = validate(model, fixed)
            record({
                "step": step,
                "time_s": time.perf_counter() - begun,
                "tokens": float(step * batch * micro_batches * length),
                "train/loss": float(np.mean(since)),
                "valid/loss": nats,
                "valid/bpc": nats / math.log(2),
            })
            since = []


def main():
    args = arguments()
    model_options, options = load(args.config)
    environment.prepare(args.threads)
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "metrics.jsonl"), "w", encoding="utf-8") as file:

        def record(values):
            print(json.dumps(values), file=file, flush=True)
            print(f"step {values['step']}/{args.steps}  valid {values['valid/bpc']:.4f} bpc", flush=True)

        train(args, model_options, options, record)


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(f"error: {problem}")
