import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trunkline_train.model.dropout import Dropout, quicken_dropout


def drop(x: Tensor, p: float, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return Dropout(p).train()(x)


def test_evaluation_changes_nothing() -> None:
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_dropped_is_as_asked_and_the_rest_is_scaled(p: float) -> None:
    y = drop(torch.ones(1000, 1001), p)
    share = (y == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / y.numel()) ** 0.5)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-3)


def test_all_can_be_dropped() -> None:
    assert torch.equal(drop(torch.ones(64), 1.0), torch.zeros(64))


def test_bf16_is_scaled_without_bias() -> None:
    x = torch.full((400, 400), 1.7, dtype=torch.bfloat16)
    kept = drop(x, 0.1).float()
    assert kept[kept > 0].unique().item() == (x[0, 0].float() / 0.9).bfloat16().float()


def test_elements_are_dropped_independently() -> None:
    dropped = (drop(torch.ones(1 << 18), 0.5) == 0).double() - 0.5
    for lag in (1, 2, 3, 4, 8, 384):
        assert abs((dropped[lag:] * dropped[:-lag]).mean().item()) < 0.25 * 5 / 512


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0, 3), (3, 4, 5)])
def test_any_shape_and_the_same_seed_drop_the_same(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    assert drop(x, 0.5).shape == shape
    assert torch.equal(drop(x, 0.5), drop(x, 0.5))


def test_another_seed_drops_others() -> None:
    x = torch.ones(64)
    assert not torch.equal(drop(x, 0.5, 1), drop(x, 0.5, 2))


def test_gradients_flow_where_elements_were_kept() -> None:
    x = torch.rand(50, 50).add(0.5).requires_grad_()
    y = drop(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, y.detach() / x.detach())


def test_strided_inputs_are_handled() -> None:
    x = torch.rand(6, 8).add(1.0)
    assert torch.equal(drop(x.t(), 0.5), drop(x.t().contiguous(), 0.5))


def test_a_checkpointed_part_drops_the_same_twice() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(8, 8), Dropout(0.5), nn.Linear(8, 8))
    x = torch.randn(4, 8)
    grads = []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=False)):
        torch.manual_seed(3)
        block.zero_grad()
        run(x).square().sum().backward()
        grads.append([parameter.grad.clone() for parameter in block.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_every_dropout_of_a_module_is_replaced() -> None:
    module = nn.Sequential(nn.Dropout(0.2), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))).eval()
    keys = set(module.state_dict())
    quicken_dropout(module)
    found = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    assert [(type(part), part.p, part.training) for part in found] == [
        (Dropout, 0.2, False),
        (Dropout, 0.3, False),
    ]
    assert set(module.state_dict()) == keys
