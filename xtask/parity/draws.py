"""Weights and inputs: the same for a case on every machine, and nowhere a neutral element."""

import hashlib
import zlib

import numpy as np

NEAR_ONE = {"gamma", "weight"}


def seed_of(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def generator(seed, tensor):
    """A stream a tensor: adding one changes no other."""
    return np.random.default_rng([seed, zlib.crc32(tensor.encode())])


def normal(seed, tensor, shape):
    return generator(seed, tensor).standard_normal(shape).astype(np.float32)


def weights(case, initial):
    """Values for the reference's parameters, of which `initial` has names, shapes and own values."""
    if case.draw.own_init:
        return initial
    drawn = {name: weight(case, name, value) for name, value in initial.items()}
    silence_channels(case, drawn)
    return drawn


def neighbour(case, weights, index):
    """The same weights, every other one an ulp off: a model as good as the same, whose runs round otherwise."""
    return {name: jitter(generator(case.seed, f"neighbour.{index}.{name}"), x) for name, x in weights.items()}


def jitter(draw, x):
    moved = np.nextafter(x, np.float32(np.inf) * draw.choice(np.float32([-1, 1]), x.shape))
    # What is exactly zero is so on purpose.
    return np.where((x == 0) | (draw.random(x.shape) < 0.5), x, moved)


def weight(case, name, initial):
    kind = name.split(".")[-1]
    if kind == "freqs":
        # A constant of the rotary embedding, kept among the parameters.
        return initial
    noise = normal(case.seed, f"param.{name}", initial.shape)
    if initial.ndim == 1:
        return np.float32(kind in NEAR_ONE) + np.float32(0.2) * noise
    if kind == "embedding":
        # Tied to the logits: with a larger one each token would mostly predict itself.
        return np.float32(0.3) * noise
    if name == "token_emb.weight":
        return noise
    fan_in = initial.shape[1 if case.subject.framework == "pytorch" else 0]
    return widen_transition(case, name, noise / np.float32(np.sqrt(fan_in)))


def widen_transition(case, name, matrix):
    """Larger state transitions have magnitudes nearer to one: a longer memory."""
    scale = np.float32(case.draw.transition_scale)
    parts = name.split(".")
    if "to_a" in parts or parts[-1] == "wa":
        return scale * (turn_to_positive(matrix) if case.draw.positive else matrix)
    if "to_qkva" in parts:
        matrix[2 * len(matrix) // 3:] *= scale
    return matrix


def turn_to_positive(matrix):
    """With positive inputs, transitions of small phase: rows are real and imaginary parts in turn."""
    matrix[0::2] = np.abs(matrix[0::2])
    matrix[1::2] *= np.float32(0.2)
    return matrix


def silence_channels(case, drawn):
    """Rows of zeros in the projection to kv: an input of the scan that is exactly zero."""
    if case.draw.zero_channels:
        matrix = drawn["to_qkva.0.weight"]
        dim = len(matrix) // 3
        matrix[dim:dim + case.draw.zero_channels] = 0


def inputs(case):
    return token_inputs(case) if case.subject.kind == "model" else layer_inputs(case)


def token_inputs(case):
    draw = generator(case.seed, "input.windows")
    tokens = case.subject.options["num_tokens"]
    return {"windows": draw.integers(0, tokens, (case.batch, case.length + 1), dtype=np.int64)}


def layer_inputs(case):
    shape = (case.batch, case.length, case.subject.options["dim"])
    drawn = {name: normal(case.seed, f"input.{name}", shape) for name in ("x", "dy")}
    if case.draw.positive:
        drawn["x"] = np.abs(drawn["x"])
    drawn["x"][:, list(case.draw.zero_steps)] = 0
    if case.cached:
        drawn["cache"] = normal(case.seed, "input.cache", (shape[0], shape[2]))
    return drawn


def prompt(case, length):
    draw = generator(case.seed, "greedy.prompt")
    return draw.integers(0, case.subject.options["num_tokens"], (1, length), dtype=np.int64)
