"""CausalFullAttention: every combination of its options at one shape, and each option at others."""

from dataclasses import replace
from itertools import product

from matrix.case import FIXTURE, FULL, QUICK, Case, Draw, Subject, name
from matrix.gate_loop import ABLATE_BOTH, ABLATE_COMPLEX, ABLATE_TRANSITION

SOFTMAX_SLUGS = {None: "", True: "softmax", False: "linear"}


def attention(
    length, batch, rotary=False, swish=False, softmax=None, rel_pos=False, call=None, tier=FULL, slug="",
    dim=16, dim_head=4, heads=2, fraction=0.5, positive=False,
):
    options = {
        "dim": dim,
        "dim_head": dim_head,
        "heads": heads,
        "rotary_emb": rotary,
        "swish_gating": swish,
        "data_dependent_rel_pos": rel_pos,
        "frac_gradient_data_dependent_rel_pos": fraction,
        "softmax_normalize": softmax,
        "rel_pos": "as_reference",
    }
    subject = Subject("pytorch", "layer", options, call or {}, "attention")
    draw = replace(Draw.for_length(length), positive=positive)
    slugs = ["rotary" * rotary, "swish" * swish, SOFTMAX_SLUGS[softmax], "rel-pos" * rel_pos]
    slugs += ["positive" * positive, slug]
    full_slug = "-".join(["torch-attention", *filter(None, slugs)])
    return Case(name(full_slug, length, batch), subject, length, batch, draw, tier=tier)


def cases():
    yield from combinations()
    yield from lengths()
    yield from head_widths()
    yield from relative_positions()
    yield from positive_transitions()
    yield from fixtures()


def combinations():
    for rotary, swish, softmax, rel_pos in product((False, True), (False, True), (None, True, False), (False, True)):
        yield attention(17, 3, rotary, swish, softmax, rel_pos)


def lengths():
    for length, batch in [(1, 1), (2, 3), (128, 3), (1000, 1)]:
        yield attention(length, batch, rotary=True, swish=True, tier=QUICK if length == 128 else FULL)
        yield attention(length, batch, softmax=False)
    yield attention(2, 3, rel_pos=True)
    yield attention(128, 1, rel_pos=True)
    yield attention(128, 3, softmax=True, rel_pos=True)


def head_widths():
    yield attention(17, 3, dim_head=1, heads=3, slug="head-dim-1")
    yield attention(17, 3, dim_head=2, heads=3, rel_pos=True, slug="head-dim-2")
    yield attention(17, 3, dim=32, dim_head=64, heads=2, rotary=True, slug="head-dim-64")
    yield attention(128, 1, dim=32, dim_head=64, heads=1, rel_pos=True, slug="head-dim-64")


def relative_positions():
    for slug, call in [("complex", ABLATE_COMPLEX), ("transition", ABLATE_TRANSITION), ("both", ABLATE_BOTH)]:
        yield attention(17, 3, rel_pos=True, call=call, slug=f"ablate-{slug}")
    yield attention(128, 1, rotary=True, softmax=True, rel_pos=True, call=ABLATE_COMPLEX, slug="ablate-complex")
    # Without relative positions an ablation changes nothing.
    yield attention(17, 1, call=ABLATE_BOTH, slug="ablate-both")
    for fraction in (0.0, 0.9, 1.0):
        yield attention(17, 3, rel_pos=True, fraction=fraction, slug=f"frac-{fraction}")


def positive_transitions():
    """Elsewhere some products are clamped to 1e-10, and keys of 1e10 drown the rest; here hardly any is."""
    for softmax in (None, True):
        yield attention(17, 3, softmax=softmax, rel_pos=True, positive=True)
    yield attention(17, 1, rotary=True, swish=True, rel_pos=True, positive=True)
    yield attention(128, 1, rel_pos=True, positive=True)
    yield attention(17, 3, rel_pos=True, call=ABLATE_COMPLEX, positive=True, slug="ablate-complex")


def fixtures():
    small = {"dim": 8, "tier": FIXTURE}
    yield attention(17, 3, rotary=True, swish=True, slug="dim8", **small)
    yield attention(17, 1, softmax=False, slug="dim8", **small)
    yield attention(17, 1, rel_pos=True, slug="dim8", **small)
    yield attention(17, 1, rel_pos=True, positive=True, slug="dim8", **small)
    yield attention(
        17, 1, rotary=True, softmax=True, rel_pos=True, call=ABLATE_COMPLEX, fraction=0.9, positive=True,
        slug="ablate-complex-frac-0.9-dim8", **small,
    )
    yield attention(2, 1, rel_pos=True, call=ABLATE_TRANSITION, slug="ablate-transition-dim8", **small)
