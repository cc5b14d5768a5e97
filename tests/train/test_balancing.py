import json

import numpy as np
import pytest
import torch

from trunkline_train.balancing import BALANCERS, Balancer, GradNorm
from trunkline_train.settings import BalancingConfig

TASKS = ("ner", "qa", "topic")


def balancer(method: str, **settings: float) -> Balancer:
    config = BalancingConfig(method=method, **settings)
    return BALANCERS[method](TASKS, config)


def walk(made: Balancer, steps: range) -> list[dict[str, float]]:
    """Feeds losses: `ner` falls fast, `qa` stays high, `topic` is small and slow."""
    seen = []
    for step in steps:
        weights = made.weights()
        seen.append(weights)
        made.combine({task: torch.full((4,), weights[task]) for task in TASKS}, weights)
        made.observe({"ner": 2.0 * 0.98**step, "qa": 4.0, "topic": 0.2 * 0.999**step})
    return seen


def test_static_leaves_the_losses_alone() -> None:
    assert walk(balancer("static"), range(5)) == [dict.fromkeys(TASKS, 1.0)] * 5


@pytest.mark.parametrize("method", sorted(BALANCERS))
def test_weights_are_positive_and_named(method: str) -> None:
    for weights in walk(balancer(method), range(60)):
        assert tuple(weights) == TASKS
        assert all(np.isfinite(weight) and weight > 0 for weight in weights.values())


@pytest.mark.parametrize("method", sorted(BALANCERS))
def test_a_restored_balancer_goes_on_exactly(method: str) -> None:
    whole = balancer(method)
    walked = walk(whole, range(40))
    first = balancer(method)
    walk(first, range(23))
    second = balancer(method)
    second.restore(json.loads(json.dumps(first.state())))
    assert walk(second, range(23, 40)) == walked[23:]


def test_gradnorm_gives_slow_tasks_more() -> None:
    weights = walk(balancer("gradnorm"), range(40))[-1]
    assert min(weights["qa"], weights["topic"]) > weights["ner"]
    assert sum(weights.values()) == pytest.approx(len(TASKS))


def gradnorm_walk(made: GradNorm, steps: int) -> dict[str, float]:
    """Gradients in proportion to the weights: `qa` has ten times the norm of the others."""
    base = {"ner": 1.0, "qa": 10.0, "topic": 1.0}
    for _ in range(steps):
        weights = made.weights()
        made.combine({t: torch.full((4,), base[t] * weights[t]) for t in TASKS}, weights)
        made.observe(dict.fromkeys(TASKS, 1.0))
    return made.weights()


def test_gradnorm_evens_out_the_norms() -> None:
    made = balancer("gradnorm", rate=0.01)
    assert isinstance(made, GradNorm)
    weights = gradnorm_walk(made, 3000)
    assert weights["qa"] < 0.25 < weights["ner"]
    assert 10 * weights["qa"] == pytest.approx(weights["ner"], rel=0.25)


def test_normalized_gradients_have_the_lengths_of_their_weights() -> None:
    given = {"ner": torch.tensor([100.0, 0.0]), "qa": torch.tensor([0.0, -0.01])}
    found = balancer("normalized").combine(given, {"ner": 1.0, "qa": 2.0})
    assert torch.allclose(found, torch.tensor([1.0, -2.0]))
    nothing = {"ner": torch.zeros(2), "qa": torch.tensor([0.0, 3.0])}
    found = balancer("normalized").combine(nothing, {"ner": 1.0, "qa": 1.0})
    assert torch.allclose(found, torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("method", sorted(BALANCERS))
def test_a_task_that_took_no_part_does_no_harm(method: str) -> None:
    made = balancer(method)
    for step in range(20):
        made.weights()
        made.observe({"ner": 1.0} if step % 2 else {"qa": 2.0, "topic": 1.0})
    assert all(np.isfinite(weight) for weight in made.weights().values())
