"""Transformer of the PyTorch reference, with either mixer, and stacks of its simple layer."""

from matrix.case import FIXTURE, FULL, QUICK, Case, Draw, Subject, name
from matrix.gate_loop import ABLATE_BOTH, ABLATE_COMPLEX, ABLATE_TRANSITION

GREEDY, SHORT_GREEDY = 128, 32

ABLATE_NOTHING = {"ablate_complex": False, "ablate_state_transition": False}

ATTENTION = {"use_gate_looped_attn": False, "dim_head": 16, "heads": 2}
REL_POS = {**ATTENTION, "data_dependent_rel_pos": True, "rel_pos": "as_reference"}
SIMPLE = {"layers": ["simple_gate_loop"]}


def model(slug, length, batch, call=None, greedy=0, tier=FULL, num_tokens=64, dim=32, depth=2, **options):
    options = {"num_tokens": num_tokens, "dim": dim, "depth": depth, **options}
    subject = Subject("pytorch", "model", options, call or {})
    slug = name(f"torch-model-{slug}", length, batch)
    return Case(slug, subject, length, batch, Draw.for_length(length), greedy=greedy, tier=tier)


def cases():
    yield from gate_loop_shapes()
    yield from gate_loop_options()
    yield from gate_loop_ablations()
    yield from attention_models()
    yield from relative_position_models()
    yield from simple_stacks()
    yield from fixtures()


def gate_loop_shapes():
    yield model("max-heads", 128, 3, num_tokens=256, dim=64, greedy=GREEDY, tier=QUICK)
    yield model("max-heads", 1, 3)
    yield model("max-heads", 2, 1, depth=1)
    yield model("max-heads", 1000, 1, depth=1)
    yield model("heads8", 128, 3, num_tokens=256, dim=64, gate_loop_heads=8, greedy=GREEDY)
    yield model("heads8-depth3", 17, 1, depth=3, gate_loop_heads=8)
    yield model("heads8", 1, 1, gate_loop_heads=8)
    yield model("head-dim-64", 128, 1, dim=128, depth=1, gate_loop_heads=2)
    yield model("one-head", 17, 3, gate_loop_heads=1)


def gate_loop_options():
    yield model("inner48", 17, 3, dim_gate_looped_attn=48)
    yield model("no-swish", 17, 3, attn_add_swish_gating=False, greedy=GREEDY)
    yield model(
        "no-swish-inner16-heads4", 128, 1, attn_add_swish_gating=False, dim_gate_looped_attn=16, gate_loop_heads=4
    )
    yield model("sub-ln", 17, 3, sub_ln=True)
    yield model("frac-0.0", 17, 3, frac_gradient_state_transition=0.0)
    yield model("frac-0.5-heads4", 128, 1, gate_loop_heads=4, frac_gradient_state_transition=0.5)
    yield model("checkpoint", 17, 3, checkpoint_gate_looped_attn=True)
    yield model("checkpoint-heads4-depth3", 128, 1, depth=3, gate_loop_heads=4, checkpoint_gate_looped_attn=True)
    yield model("ff-mult2", 17, 3, ff_mult=2)
    yield model("post-norm", 128, 3, post_ln_norm=True, greedy=GREEDY)
    yield model("post-norm-sub-ln-heads4", 17, 3, post_ln_norm=True, sub_ln=True, gate_loop_heads=4, greedy=GREEDY)


def gate_loop_ablations():
    yield model("ablate-complex", 17, 3, ablate_complex=True)
    yield model("ablate-transition", 17, 3, ablate_state_transition=True)
    yield model("ablate-both-heads4", 128, 1, gate_loop_heads=4, **ABLATE_BOTH)
    yield model("call-ablate-complex", 17, 3, ABLATE_COMPLEX, gate_loop_heads=4)
    yield model("call-ablate-transition", 17, 1, ABLATE_TRANSITION)
    # What is said at the call goes before what was said at construction.
    yield model("call-undoes-ablations", 17, 3, ABLATE_NOTHING, **ABLATE_BOTH)


def attention_models():
    yield model("attention", 128, 3, dim=64, num_tokens=256, **ATTENTION, greedy=GREEDY)
    yield model("attention", 1, 3, **ATTENTION)
    yield model("attention-default-heads", 17, 1, use_gate_looped_attn=False)
    yield model("attention-rotary", 128, 3, **ATTENTION, rotary_emb=True, greedy=GREEDY, tier=QUICK)
    yield model("attention-rotary", 1000, 1, depth=1, **ATTENTION, rotary_emb=True)
    yield model("attention-no-swish", 17, 3, **ATTENTION, attn_add_swish_gating=False)
    yield model("attention-linear", 17, 3, **ATTENTION, attn_softmax_normalize=False, greedy=GREEDY)
    yield model("attention-softmax", 2, 3, **ATTENTION, attn_softmax_normalize=True)
    yield model("attention-post-norm-rotary", 17, 3, **ATTENTION, post_ln_norm=True, rotary_emb=True, greedy=GREEDY)
    yield model("attention-head-dim-1", 17, 3, use_gate_looped_attn=False, dim_head=1, heads=8)


def relative_position_models():
    yield model("attention-rel-pos", 17, 3, **REL_POS)
    yield model("attention-rel-pos-softmax-rotary", 17, 3, **REL_POS, attn_softmax_normalize=True, rotary_emb=True)
    yield model(
        "attention-rel-pos-frac-0.5-post-norm", 17, 1, **REL_POS, frac_gradient_state_transition=0.5,
        post_ln_norm=True,
    )
    yield model("attention-rel-pos-ablate-complex", 17, 3, **REL_POS, ablate_complex=True)
    yield model("attention-rel-pos-call-ablate-transition", 17, 3, ABLATE_TRANSITION, **REL_POS)


def simple_stacks():
    yield model("simple-stack", 128, 3, num_tokens=256, dim=64, **SIMPLE, greedy=GREEDY, tier=QUICK)
    yield model("simple-stack", 1, 3, **SIMPLE)
    yield model("simple-stack", 1000, 1, depth=1, **SIMPLE)
    yield model("simple-stack-ff-mult2-depth3", 17, 3, depth=3, ff_mult=2, **SIMPLE)
    yield model("simple-stack-post-norm", 17, 3, post_ln_norm=True, **SIMPLE, greedy=GREEDY)


def fixtures():
    small = {"num_tokens": 16, "dim": 8, "depth": 1, "ff_mult": 2, "tier": FIXTURE}
    attention = {"use_gate_looped_attn": False, "dim_head": 4, "heads": 2}
    yield model("max-heads-dim8", 17, 1, **{**small, "depth": 2}, greedy=SHORT_GREEDY)
    yield model(
        "post-norm-sub-ln-inner12-heads3-checkpoint-dim8", 17, 3, **small, post_ln_norm=True, sub_ln=True,
        dim_gate_looped_attn=12, gate_loop_heads=3, checkpoint_gate_looped_attn=True,
    )
    yield model(
        "no-swish-frac-0.5-call-undoes-ablation-dim8", 17, 1, {**ABLATE_BOTH, "ablate_state_transition": False},
        **small, attn_add_swish_gating=False, frac_gradient_state_transition=0.5, **ABLATE_BOTH,
    )
    yield model("attention-rotary-dim8", 17, 1, **small, **attention, rotary_emb=True, greedy=SHORT_GREEDY)
    yield model("attention-linear-dim8", 17, 1, **small, **attention, attn_softmax_normalize=False)
    yield model(
        "attention-rel-pos-softmax-post-norm-dim8", 17, 1, **small, **attention, data_dependent_rel_pos=True,
        rel_pos="as_reference", attn_softmax_normalize=True, post_ln_norm=True,
    )
    yield model("simple-stack-dim8", 17, 3, **small, **SIMPLE, greedy=SHORT_GREEDY)
    yield model("simple-stack-post-norm-dim8", 2, 1, **small, **SIMPLE, post_ln_norm=True)
