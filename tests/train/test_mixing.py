from collections import Counter

import numpy as np
import pytest

from trunkline_train.mixing import Mixer
from trunkline_train.settings import MixingConfig

SIZES = (400, 100, 20)


def mixer(sampler: str, *, sizes=SIZES, epochs: int | None = 4, seed: int = 1, **settings) -> Mixer:
    ratios = settings.pop("weights", (1.0,) * len(sizes))
    named = {f"task{at}": ratio for at, ratio in enumerate(ratios)} if sampler == "ratios" else {}
    draws = settings.pop("draws", len(sizes))
    least = settings.pop("least", 600)
    config = MixingConfig(sampler=sampler, ratios=named, **settings)
    return Mixer(config, sizes, draws=draws, ratios=ratios, epochs=epochs, least=least, seed=seed)


def counts(mixed: Mixer, steps: range) -> np.ndarray:
    drawn = Counter(index for step in steps for index in mixed.at(step))
    return np.array([drawn[index] for index in range(len(SIZES))])


def test_round_robin_gives_every_task_a_batch_in_every_step() -> None:
    mixed = mixer("round-robin")
    assert mixed.steps_per_epoch == max(SIZES)
    assert all(sorted(mixed.at(step)) == [0, 1, 2] for step in range(20))


@pytest.mark.parametrize(("rows", "total"), [(50, 600), (150, 600), (500, 672), (50_000, 9375)])
def test_small_data_is_read_until_it_made_enough_steps(rows: int, total: int) -> None:
    batches = -(-rows // 16)
    mixed = mixer("round-robin", sizes=(batches,), epochs=None, draws=1)
    assert (mixed.epochs, mixed.total) == (3, pytest.approx(total, rel=0.05))
    assert mixed.total == 3 * mixed.passes * batches  # whole passes, as many in each epoch
    assert mixed.total >= 600


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("sampler", ["round-robin", "proportional"])
def test_every_data_set_counts_for_the_fewest_steps(sampler: str, draws: int) -> None:
    mixed = mixer(sampler, sizes=(10, 7, 5), epochs=None, draws=draws)
    drawn = counts(mixed, range(mixed.total))
    assert drawn.sum() >= 3 * 600
    if sampler == "round-robin":
        assert min(drawn) >= 600


def test_epochs_that_are_set_are_single_passes() -> None:
    mixed = mixer("round-robin", sizes=(10,), epochs=2, draws=1)
    assert (mixed.passes, mixed.steps_per_epoch, mixed.total) == (1, 10, 20)


@pytest.mark.parametrize("draws", [1, 2, 4, 5])
def test_round_robin_takes_turns_whatever_a_step_holds(draws: int) -> None:
    mixed = mixer("round-robin", draws=draws)
    walked = [index for step in range(30) for index in mixed.at(step)]
    assert walked == [at % 3 for at in range(30 * draws)]


@pytest.mark.parametrize("draws", [1, 3, 8])
def test_an_epoch_of_proportional_is_a_pass_over_all(draws: int) -> None:
    mixed = mixer("proportional", draws=draws)
    drawn = counts(mixed, range(mixed.steps_per_epoch))
    assert drawn.sum() == pytest.approx(sum(SIZES), abs=draws)
    assert drawn == pytest.approx(np.array(SIZES), rel=0.25, abs=8)


def test_temperature_flattens() -> None:
    plain = mixer("temperature", temperature=1.0).shares()
    flat = mixer("temperature", temperature=100.0).shares()
    assert plain == pytest.approx(np.array(SIZES) / sum(SIZES))
    assert flat == pytest.approx([1 / 3] * 3, abs=0.01)


def test_ratios_are_kept_to_a_batch_within_every_step() -> None:
    mixed = mixer("ratios", weights=(3.0, 2.0, 1.0), draws=6)
    assert all(sorted(mixed.at(step)) == [0, 0, 0, 1, 1, 2] for step in range(50))


@pytest.mark.parametrize("sampler", ["round-robin", "proportional", "temperature"])
def test_draws_follow_from_the_step_alone(sampler: str) -> None:
    forward, backward = mixer(sampler), mixer(sampler)
    walked = [forward.at(step) for step in range(100)]
    assert [backward.at(step) for step in reversed(range(100))] == walked[::-1]


def test_seeds_draw_otherwise() -> None:
    one, two = (mixer("proportional", seed=seed, draws=2) for seed in (1, 2))
    assert [one.at(step) for step in range(40)] != [two.at(step) for step in range(40)]


def test_sampled_shares_are_met_over_many_steps() -> None:
    mixed = mixer("temperature", draws=2, epochs=100)
    drawn = counts(mixed, range(5000))
    assert drawn / drawn.sum() == pytest.approx(mixed.shares(), abs=0.01)
