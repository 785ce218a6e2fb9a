"""Greedy continuation, and how clear its choices were."""

from dataclasses import dataclass

import numpy as np

from errors import rms
from problem import Problem

# Below this another order of summation could choose another token, and comparing would mean nothing.
SMALLEST_MARGIN = 1e-4


@dataclass(frozen=True)
class Continuation:
    prompt: np.ndarray
    ids: np.ndarray
    margin: float

    def tensors(self):
        return {"prompt": self.prompt, "ids": self.ids, "margin": np.float64(self.margin)}


def continue_greedily(next_logits, prompt, length):
    """`next_logits` gives the logits after all ids so far; they are computed anew for each token."""
    ids, margin = prompt, np.inf
    for _ in range(length):
        logits = next_logits(ids)
        margin = min(margin, lead(logits))
        ids = np.append(ids, [[logits.argmax()]], axis=1)
    if not margin >= SMALLEST_MARGIN:
        raise Problem(f"greedy choices as close as {margin:.1e}: rename the case to draw other weights")
    return Continuation(prompt, ids[:, prompt.shape[1]:], margin)


def lead(logits):
    """By how much the best logit leads, relative to the RMS of all."""
    second, best = np.sort(logits.astype(np.float64))[-2:]
    return (best - second) / rms(logits)
