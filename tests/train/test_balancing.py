import json

import numpy as np
import pytest
import torch

from trunkline_train.balancing import BALANCERS, Balancer, GradNorm, ProjectedGradients
from trunkline_train.settings import BalancingConfig

TASKS = ("ner", "qa", "topic")


def balancer(method: str, **settings: float) -> Balancer:
    config = BalancingConfig(method=method, **settings)
    return BALANCERS[method](TASKS, config, 3)


def walk(made: Balancer, steps: range) -> list[dict[str, float]]:
    """Feeds losses: `ner` falls fast, `qa` stays high, `topic` is small and slow."""
    seen = []
    for step in steps:
        seen.append(made.weights(step))
        made.observe({"ner": 2.0 * 0.98**step, "qa": 4.0, "topic": 0.2 * 0.999**step})
    return seen


def test_static_leaves_the_losses_alone() -> None:
    assert walk(balancer("static"), range(5)) == [dict.fromkeys(TASKS, 1.0)] * 5


@pytest.mark.parametrize("method", sorted(BALANCERS))
def test_weights_are_positive_and_named(method: str) -> None:
    for weights in walk(balancer(method, window=5), range(60)):
        assert tuple(weights) == TASKS
        assert all(np.isfinite(weight) and weight > 0 for weight in weights.values())


@pytest.mark.parametrize("method", sorted(BALANCERS))
def test_a_restored_balancer_goes_on_exactly(method: str) -> None:
    whole = balancer(method, window=5)
    walked = walk(whole, range(40))
    first = balancer(method, window=5)
    walk(first, range(23))
    second = balancer(method, window=5)
    second.restore(json.loads(json.dumps(first.state())))
    assert walk(second, range(23, 40)) == walked[23:]


def test_uncertainty_tends_to_the_weight_its_loss_asks_for() -> None:
    made = balancer("uncertainty", rate=0.1)
    for _ in range(2000):
        made.observe({"ner": 2.0, "qa": 0.5, "topic": 1.0})
    # exp(-s) L + s / 2 is least at exp(-s) = 1 / (2 L).
    assert list(made.weights(0).values()) == pytest.approx([0.25, 1.0, 0.5], rel=0.01)


def test_dwa_gives_slow_tasks_more() -> None:
    weights = walk(balancer("dwa", window=10), range(40))[-1]
    assert weights["qa"] > weights["topic"] > weights["ner"]
    assert sum(weights.values()) == pytest.approx(len(TASKS))


def test_famo_moves_to_tasks_without_progress() -> None:
    made = balancer("famo")
    walk(made, range(200))
    share = dict(zip(TASKS, made.values, strict=True))
    assert share["qa"] > share["ner"]
    assert share["topic"] > share["ner"]


def test_famo_makes_up_for_the_size_of_a_loss() -> None:
    made = balancer("famo")
    made.observe({"ner": 1.0, "qa": 4.0, "topic": 0.5})
    weights = made.weights(1)
    assert weights["ner"] / weights["qa"] == pytest.approx(4.0)
    assert weights["topic"] / weights["ner"] == pytest.approx(2.0)


def test_random_weights_change_with_the_step_and_average_to_one() -> None:
    made = balancer("random")
    drawn = np.array([list(made.weights(step).values()) for step in range(3000)])
    assert drawn.sum(axis=1) == pytest.approx(np.full(3000, 3.0))
    assert drawn.mean(axis=0) == pytest.approx([1.0] * 3, abs=0.05)
    assert len({tuple(row) for row in drawn[:50]}) == 50


def gradnorm_walk(made: GradNorm, steps: int) -> dict[str, float]:
    """Gradients in proportion to the weights: `qa` has ten times the norm of the others."""
    base = {"ner": 1.0, "qa": 10.0, "topic": 1.0}
    for step in range(steps):
        weights = made.weights(step)
        made.combine({t: torch.full((4,), base[t] * weights[t]) for t in TASKS}, weights, step)
        made.observe(dict.fromkeys(TASKS, 1.0))
    return made.weights(steps)


def test_gradnorm_evens_out_the_norms() -> None:
    made = balancer("gradnorm", rate=0.01)
    assert isinstance(made, GradNorm)
    weights = gradnorm_walk(made, 3000)
    assert weights["qa"] < 0.25 < weights["ner"]
    assert 10 * weights["qa"] == pytest.approx(weights["ner"], rel=0.25)


def test_projection_takes_out_only_what_conflicts() -> None:
    made = balancer("pcgrad")
    assert isinstance(made, ProjectedGradients)
    apart = {"ner": torch.tensor([1.0, 0.0]), "qa": torch.tensor([0.0, 2.0])}
    assert torch.equal(made.combine(apart, {}, 0), torch.tensor([1.0, 2.0]))
    against = {"ner": torch.tensor([1.0, 0.0]), "qa": torch.tensor([-1.0, 1.0])}
    found = made.combine(against, {}, 0)
    # Each is projected onto the normal of the other: [.5, .5] and [0, 1].
    assert torch.allclose(found, torch.tensor([0.5, 1.5]))
    assert torch.dot(found, against["ner"]) >= 0
    assert torch.dot(found, against["qa"]) >= 0


def test_normalized_gradients_have_the_lengths_of_their_weights() -> None:
    given = {"ner": torch.tensor([100.0, 0.0]), "qa": torch.tensor([0.0, -0.01])}
    found = balancer("normalized").combine(given, {"ner": 1.0, "qa": 2.0}, 0)
    assert torch.allclose(found, torch.tensor([1.0, -2.0]))
    nothing = {"ner": torch.zeros(2), "qa": torch.tensor([0.0, 3.0])}
    found = balancer("normalized").combine(nothing, {"ner": 1.0, "qa": 1.0}, 0)
    assert torch.allclose(found, torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("method", sorted(BALANCERS))
def test_a_task_that_took_no_part_does_no_harm(method: str) -> None:
    made = balancer(method, window=2)
    for step in range(20):
        made.weights(step)
        made.observe({"ner": 1.0} if step % 2 else {"qa": 2.0, "topic": 1.0})
    assert all(np.isfinite(weight) for weight in made.weights(20).values())
