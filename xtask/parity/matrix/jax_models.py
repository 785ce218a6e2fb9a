"""GateLoopTransformer of the JAX reference."""

from matrix.case import FIXTURE, FULL, QUICK, Case, Draw, Subject, name
from matrix.torch_models import GREEDY, SHORT_GREEDY

FIXED = {"tie_embedding": True, "gelu": "tanh", "rms_norm": "epsilon", "state_transition_bias": False}


def model(slug, length, batch, num_tokens=64, dim=32, depth=1, draw=None, greedy=0, tier=FULL, **options):
    options = {"num_tokens": num_tokens, "dim": dim, "depth": depth, **options, **FIXED}
    subject = Subject("jax", "model", options)
    slug = name(f"jax-model-{slug}", length, batch)
    return Case(slug, subject, length, batch, draw or Draw.for_length(length), greedy=greedy, tier=tier)


def cases():
    yield model("depth2", 128, 3, num_tokens=256, dim=64, depth=2, greedy=GREEDY, tier=QUICK)
    yield model("depth3", 17, 1, depth=3, greedy=GREEDY)
    yield model("dim16-depth2", 17, 3, dim=16, depth=2, greedy=GREEDY)
    yield model("dim128", 17, 1, dim=128)
    yield model("depth2", 1, 3, depth=2)
    yield model("depth1", 2, 1)
    yield model("depth1", 1000, 1)
    yield model("depth1", 128, 1)
    yield model("ff-mult2", 17, 3, depth=2, ff_mult=2)
    yield model("ff-mult1-vocab32", 17, 3, num_tokens=32, ff_mult=1)
    yield from own_init()
    yield from fixtures()


def own_init():
    """As published: projections of variance one, so that most gates and transitions are saturated."""
    draw = Draw(own_init=True)
    yield model("own-init", 17, 3, draw=draw)
    yield model("own-init-depth2", 128, 1, depth=2, draw=draw)


def fixtures():
    small = {"num_tokens": 16, "dim": 8, "tier": FIXTURE}
    yield model("dim8", 17, 3, **small, greedy=SHORT_GREEDY)
    yield model("depth2-ff-mult2-dim8", 2, 1, depth=2, ff_mult=2, **small)
