"""The PyTorch reference trained as configs/quick.toml says: the peer of `cargo xtask train`.

    pip install torch==2.11.0 gateloop-transformer==0.2.5 numpy
    python benches/peers/train_reference.py path/to/enwik8 [STEPS]

Prints step, validation loss in bits per character over the same 32 windows, and seconds.
"""

import math
import sys
import time

import numpy as np
import torch
from gateloop_transformer import Transformer

SEQ_LEN, BATCH, WINDOWS = 256, 8, 32


def windows(split, starts):
    rows = np.stack([split[s : s + SEQ_LEN + 1] for s in starts])
    return torch.from_numpy(rows.astype(np.int64))


def main(path, steps):
    torch.manual_seed(42)
    draws = np.random.default_rng(42)
    data = np.memmap(path, dtype=np.uint8, mode="r")
    train, valid = data[:90_000_000], data[90_000_000:95_000_000]
    last = len(valid) - SEQ_LEN - 1
    fixed = windows(valid, [i * last // (WINDOWS - 1) for i in range(WINDOWS)])

    model = Transformer(dim=256, num_tokens=256, depth=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.99))

    def bits_per_character():
        with torch.no_grad():
            losses = [model(rows, return_loss=True).item() for rows in fixed.split(BATCH)]
        return sum(losses) / len(losses) / math.log(2)

    begun = time.time()
    for step in range(1, steps + 1):
        starts = draws.integers(0, len(train) - SEQ_LEN, BATCH)
        loss = model(windows(train, starts), return_loss=True)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if step % 50 == 0:
            print(f"{step:5d}  {bits_per_character():.4f} bpc  {time.time() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 400)
