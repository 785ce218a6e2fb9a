"""The PyTorch reference trained as configs/quick.toml says: the peer of `cargo xtask train`.

    pip install torch==2.11.0 gateloop-transformer==0.2.5 numpy
    python benches/peers/train_reference.py path/to/enwik8

Prints step, validation loss in bits per character over the windows that `gateloop` validates on,
and seconds without and with the validations.
"""

import argparse
import math
import time

import numpy as np
import torch
from gateloop_transformer import Transformer

SEQ_LEN, WINDOWS = 256, 32


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("enwik8")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--validate-every", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, help="default: one head a channel")
    return parser.parse_args()


def windows(split, starts):
    rows = np.stack([split[s : s + SEQ_LEN + 1] for s in starts])
    return torch.from_numpy(rows.astype(np.int64))


def main(args):
    torch.manual_seed(42)
    draws = np.random.default_rng(42)
    data = np.memmap(args.enwik8, dtype=np.uint8, mode="r")
    train, valid = data[:90_000_000], data[90_000_000:95_000_000]
    last = len(valid) - SEQ_LEN - 1
    fixed = windows(valid, [i * last // (WINDOWS - 1) for i in range(WINDOWS)])

    model = Transformer(dim=args.dim, num_tokens=256, depth=args.depth, gate_loop_heads=args.heads)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.99))

    def bits_per_character():
        with torch.no_grad():
            losses = [model(rows, return_loss=True).item() for rows in fixed.split(8)]
        return sum(losses) / len(losses) / math.log(2)

    begun, in_steps = time.time(), 0.0
    for step in range(1, args.steps + 1):
        step_begun = time.time()
        starts = draws.integers(0, len(train) - SEQ_LEN, args.batch)
        loss = model(windows(train, starts), return_loss=True)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        in_steps += time.time() - step_begun
        if step % args.validate_every == 0:
            bpc, total = bits_per_character(), time.time() - begun
            print(f"{step:5d}  {bpc:.4f} bpc  {in_steps:.1f} s, {total:.1f} s in all", flush=True)


if __name__ == "__main__":
    main(arguments())
