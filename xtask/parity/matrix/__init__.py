"""The list of cases. Fixtures are also quick, and the quick ones are also in the full list."""

from matrix import attention, feed_forward, gate_loop, jax_models, simple_gate_loop, torch_models
from matrix.case import FIXTURE, FULL, QUICK

PARTS = [gate_loop, attention, feed_forward, simple_gate_loop, torch_models, jax_models]

TIERS = {"fixtures": {FIXTURE}, "quick": {FIXTURE, QUICK}, "full": {FIXTURE, QUICK, FULL}}


def every_case():
    cases = [case for part in PARTS for case in part.cases()]
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, f"names used twice: {twice}"
    return cases


def select(tier, text):
    """The cases of a tier whose names contain the text."""
    return [case for case in every_case() if case.tier in TIERS[tier] and text in case.name]
