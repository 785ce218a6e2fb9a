"""The strictness that both frameworks share."""

import numpy as np

from problem import Problem


def demand_same_layout(expected, given):
    """Names, shapes and types; a checkpoint that loads anyway would prove less."""
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in expected]
    for name in expected:
        if name in given:
            problems += differences(name, expected[name], given[name])
    if problems:
        raise Problem("; ".join(problems))


def differences(name, expected, given):
    if given.shape != expected.shape:
        yield f"{name} has the shape {list(given.shape)}, not {list(expected.shape)}"
    if given.dtype != np.float32:
        yield f"{name} is {given.dtype}, not float32"
