"""Runs the JAX reference on the weights and inputs of a case."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
from gateloop_transformer.gateloop_transformer_jax import GateLoopTransformer

from problem import Problem
from reference.placing import demand_same_layout

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")

# What the Rust model must be told about the JAX one and the reference has no option for.
FIXED = {
    "tie_embedding": True,
    "gelu": "tanh",
    "rms_norm": "epsilon",
    "state_transition_bias": False,
}


def initial_weights(subject, seed):
    return {name: np.asarray(x, np.float32) for name, x in leaves(build(subject, seed)).items()}


def run(subject, weights, inputs, double):
    model = place(subject, weights, jnp.float64 if double else jnp.float32)
    with_gradient = jax.value_and_grad(loss_and_logits, has_aux=True)
    (loss, logits), gradient = with_gradient(model, jnp.asarray(inputs["windows"]))
    found = {"logits": logits, "loss": loss}
    found |= {f"grad.{name}": x for name, x in leaves(gradient).items()}
    return {name: np.asarray(x) for name, x in found.items()}


def output(subject, weights, inputs):
    model = place(subject, weights, jnp.float32)
    return np.asarray(model(jnp.asarray(inputs["windows"][:, :-1])))


def next_logits(subject, weights, longest):
    """Every prefix padded to one length: the model is causal, and compiled once a length."""
    model = place(subject, weights, jnp.float32)

    def last(ids):
        known = ids.shape[1]
        padded = np.pad(ids, ((0, 0), (0, longest - known)))
        return np.asarray(model(jnp.asarray(padded)))[0, known - 1]

    return last


def loss_and_logits(model, windows):
    """Mean cross entropy of the next token, as the PyTorch reference has it."""
    logits = model(windows[:, :-1])
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(log_probabilities, windows[:, 1:, None], axis=-1)
    return -jnp.mean(chosen), logits


def build(subject, seed=0):
    options = dict(subject.options)
    if subject.kind != "model" or subject.call:
        raise Problem("the JAX reference is run as a whole model, without ablations")
    for name, value in FIXED.items():
        if options.pop(name, None) != value:
            raise Problem(f"the JAX reference wants {name} {value!r}")
    return GateLoopTransformer(key=jax.random.PRNGKey(seed), **options)


def place(subject, weights, dtype):
    model = build(subject)
    named = leaves(model)
    demand_same_layout(named, weights)
    placed = [jnp.asarray(weights[name], dtype) for name in named]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(model), placed)


def leaves(tree):
    """Arrays by path: `layers.0.1.proj_in.weight`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in flat}


def other_files(subject, path):
    """The weights of the formats that need no safetensors, by extension."""
    with np.load(f"{path}.npz") as arrays:
        yield "npz", dict(arrays)
    like = jax.tree_util.tree_map(lambda x: jnp.asarray(x, jnp.float32), build(subject))
    yield "eqx", {name: np.asarray(x) for name, x in leaves(equinox.tree_deserialise_leaves(f"{path}.eqx", like)).items()}
