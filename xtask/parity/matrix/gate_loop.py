"""GateLoopedAttention: heads, widths, norms, gradient fractions, ablations and checkpointing."""

from itertools import product

from matrix.case import FIXTURE, FULL, QUICK, Case, Draw, Subject, name

LENGTHS = (1, 2, 17, 128, 1000)
BATCHES = (1, 3)

ABLATE_COMPLEX = {"ablate_complex": True}
ABLATE_TRANSITION = {"ablate_state_transition": True}
ABLATE_BOTH = ABLATE_COMPLEX | ABLATE_TRANSITION


def gate_loop(slug, length, batch, call=None, tier=FULL, dim=16, dim_inner=None, heads=None, **options):
    dim_inner = dim_inner or dim
    options = {
        "dim": dim,
        "dim_inner": dim_inner,
        "heads": heads or dim_inner,
        "swish_gating": True,
        "sub_ln": False,
        "frac_gradient_state_transition": 0.9,
        "checkpoint": False,
        **options,
    }
    subject = Subject("pytorch", "layer", options, call or {}, "gate_loop")
    slug = name(f"torch-gate-loop-{slug}", length, batch)
    return Case(slug, subject, length, batch, Draw.for_length(length), tier=tier)


def cases():
    yield from shapes()
    yield from wide_heads()
    yield from widths()
    yield from gates_and_norms()
    yield from fractions()
    yield from ablations()
    yield from checkpoints()


def shapes():
    for length, batch in product(LENGTHS, BATCHES):
        tier = QUICK if (length, batch) == (128, 3) else FULL
        yield gate_loop("max-heads", length, batch, tier=tier)
        yield gate_loop("heads4", length, batch, heads=4)
    yield gate_loop("max-heads-dim8", 17, 1, dim=8, tier=FIXTURE)
    yield gate_loop("one-head", 17, 3, heads=1)
    yield gate_loop("one-head", 128, 1, heads=1)


def wide_heads():
    """64 channels a head: a state of 64 x 64."""
    for length, batch in [(1, 3), (2, 1), (17, 3), (128, 1)]:
        yield gate_loop("head-dim-64", length, batch, dim=128, heads=2)
    yield gate_loop("head-dim-64", 1000, 1, dim=64, heads=1)


def widths():
    yield gate_loop("inner24", 17, 3, dim_inner=24)
    yield gate_loop("inner32-heads8", 17, 3, dim_inner=32, heads=8)
    yield gate_loop("inner8-heads2", 128, 1, dim_inner=8, heads=2)


def gates_and_norms():
    yield gate_loop("no-swish", 17, 3, swish_gating=False)
    yield gate_loop("no-swish-heads4", 128, 1, heads=4, swish_gating=False)
    yield gate_loop("no-swish-inner24", 17, 3, dim_inner=24, swish_gating=False)
    yield gate_loop("sub-ln", 17, 3, sub_ln=True)
    yield gate_loop("sub-ln-heads4", 128, 3, heads=4, sub_ln=True)
    yield gate_loop("sub-ln-no-swish-inner24-heads6", 17, 1, dim_inner=24, heads=6, sub_ln=True, swish_gating=False)
    yield gate_loop("sub-ln-one-step", 1, 1, sub_ln=True)


def fractions():
    for fraction in (0.0, 0.5, 1.0):
        yield gate_loop(f"frac-{fraction}", 17, 3, frac_gradient_state_transition=fraction)
    yield gate_loop(
        "frac-0.0-no-swish-dim8", 2, 3, dim=8, swish_gating=False, frac_gradient_state_transition=0.0, tier=FIXTURE
    )
    yield gate_loop("frac-0.5-heads4", 128, 1, heads=4, frac_gradient_state_transition=0.5)


def ablations():
    for slug, call in [("complex", ABLATE_COMPLEX), ("transition", ABLATE_TRANSITION), ("both", ABLATE_BOTH)]:
        yield gate_loop(f"ablate-{slug}", 17, 3, call)
        yield gate_loop(f"ablate-{slug}-heads4", 128, 1, call, heads=4)
        yield gate_loop(f"ablate-{slug}-dim8-heads4", 17, 1, call, dim=8, heads=4, tier=FIXTURE)
    yield gate_loop("ablate-complex", 1000, 1, ABLATE_COMPLEX)
    yield gate_loop("ablate-transition", 1, 3, ABLATE_TRANSITION)


def checkpoints():
    yield gate_loop("checkpoint", 17, 3, checkpoint=True)
    yield gate_loop("checkpoint-heads4", 128, 3, heads=4, checkpoint=True)
    yield gate_loop("checkpoint-ablate-complex", 17, 1, ABLATE_COMPLEX, checkpoint=True)
    yield gate_loop(
        "checkpoint-sub-ln-dim8-inner12-heads2", 17, 3, dim=8, dim_inner=12, heads=2, sub_ln=True, checkpoint=True,
        tier=FIXTURE,
    )
