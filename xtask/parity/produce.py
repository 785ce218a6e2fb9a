"""All that the file of one case holds, from the reference itself."""

import draws
import reference
from case_file import prefixed
from errors import demand_finite, relative_errors
from greedy import continue_greedily
from problem import Problem

PROMPT = 8


def produce(case):
    """The metadata and the tensors of a case."""
    try:
        return produce_or_fail(case)
    except Problem as problem:
        raise Problem(f"{case.name}: {problem}") from problem


def produce_or_fail(case):
    framework = reference.of(case.subject.framework)
    weights = draws.weights(case, framework.initial_weights(case.subject, case.seed))
    inputs = draws.inputs(case)
    exact = framework.run(case.subject, weights, inputs, double=True)
    demand_finite(exact)
    rounded = framework.run(case.subject, weights, inputs, double=False)
    tensors = prefixed("param", weights) | prefixed("input", inputs) | prefixed("expect", exact)
    if case.greedy:
        tensors |= prefixed("greedy", greedy(case, framework, weights).tensors())
    return case.metadata() | {"reference": relative_errors(rounded, exact)}, tensors


def greedy(case, framework, weights):
    prompt = draws.prompt(case, PROMPT)
    next_logits = framework.next_logits(case.subject, weights, longest=PROMPT + case.greedy)
    return continue_greedily(next_logits, prompt, case.greedy)
