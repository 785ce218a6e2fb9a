"""The published implementations, behind the same four functions for each framework.

    initial_weights(subject, seed)           names and f32 values of what a fresh module holds
    run(subject, weights, inputs, double)    outputs and gradients
    output(subject, weights, inputs)         logits or y, in f32
    next_logits(subject, weights, longest)   a function from ids to the last logits, in f32

Weights are placed strictly: a missing, unexpected or misshapen one is a `Problem`.
"""

import importlib

from problem import Problem

MODULES = {"pytorch": "reference.torch_run", "jax": "reference.jax_run"}


def of(framework):
    """Imported on demand: whoever wants no JAX case needs no JAX."""
    if framework not in MODULES:
        raise Problem(f"no framework named {framework!r}")
    return importlib.import_module(MODULES[framework])
