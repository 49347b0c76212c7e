"""The learning notes this project grew from, line by line."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import configure
from handed import set_up, train
from sklearn.preprocessing import StandardScaler
from torch import nn, optim

from classify import build
from classify.heads import Sigmoid, Softmax
from classify.nets import mlp
from tabrun.runs.predictor import decide


def test_sigmoid_of_6() -> None:
    assert torch.sigmoid(torch.tensor([[6.0]])).item() == pytest.approx(0.9975, abs=5e-5)
    values = torch.sigmoid(torch.linspace(-100, 100, 1001))
    assert ((values >= 0) & (values <= 1)).all()
    # and the sigmoid head gives class 1 that probability
    assert Sigmoid()(torch.tensor([[6.0]])).softmax(-1)[0, 1].item() == pytest.approx(0.9975, abs=5e-5)


def test_6_4_1_net_ends_in_a_sigmoid() -> None:
    torch.manual_seed(0)
    body = mlp(6, 1, hidden=[4])
    rows = torch.tensor([[3.0, 4.0, 6.0, 2.0, 3.0, 6.0]])
    by_hand = nn.Sequential(*copy.deepcopy(body), nn.Sigmoid())(rows)
    probabilities = nn.Sequential(body, Sigmoid())(rows).softmax(-1)
    assert [tuple(p.shape) for p in body.parameters()] == [(4, 6), (4,), (1, 4), (1,)]
    torch.testing.assert_close(probabilities, torch.cat([1 - by_hand, by_hand], dim=-1))


def test_softmax_over_the_last_dimension() -> None:
    scores = torch.tensor([[4.3, 6.1, 2.3]])
    probabilities = nn.Softmax(dim=-1)(Softmax()(scores))
    torch.testing.assert_close(probabilities, torch.tensor([[0.1392, 0.8420, 0.0188]]), atol=5e-5, rtol=0)
    assert probabilities.shape == scores.shape
    assert probabilities.sum().item() == pytest.approx(1)


def test_a_standard_scalers_output_does_not_sum_to_1() -> None:
    scaled = StandardScaler().fit_transform(np.array([[4.3], [6.1], [2.3]]))
    assert abs(scaled.sum() - 1) > 0.5
    assert scaled.min() < 0


def test_one_hot() -> None:
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert F.one_hot(torch.tensor([0, 1, 2]), num_classes=3).tolist() == expected


def test_cross_entropy_on_scores() -> None:
    scores = torch.tensor([[-5.2, 4.6, 0.8]], dtype=torch.float64)
    one_hot = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    loss = nn.CrossEntropyLoss()(scores, one_hot)
    assert loss.item() == pytest.approx(9.8222, abs=1e-4)
    assert loss.item() == pytest.approx(np.log(np.exp([-5.2, 4.6, 0.8]).sum()) + 5.2)  # the closed form
    torch.testing.assert_close(loss, nn.CrossEntropyLoss()(scores, torch.tensor([0])))


def test_the_two_heads_have_one_loss() -> None:
    z = torch.linspace(-20, 20, 41, dtype=torch.float64)[:, None]
    labels = torch.arange(41) % 2
    expected = F.binary_cross_entropy_with_logits(z[:, 0], labels.double())
    torch.testing.assert_close(F.cross_entropy(Sigmoid()(z), labels), expected)


@pytest.fixture
def net_16_8_4_2() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 4), nn.Linear(4, 2))
    rows, labels = torch.randn(1, 16), torch.tensor([0])
    nn.CrossEntropyLoss()(net(rows), labels).backward()
    return net


def test_backward_gives_every_weight_and_bias_a_gradient_of_its_shape(net_16_8_4_2: nn.Sequential) -> None:
    layers = list(net_16_8_4_2)
    assert [tuple(layer.weight.shape) for layer in layers] == [(8, 16), (4, 8), (2, 4)]
    for layer in layers:
        assert layer.weight.grad.shape == layer.weight.shape
        assert layer.bias.grad.shape == layer.bias.shape
        assert layer.weight.grad.abs().sum() > 0


def test_a_step_of_sgd_is_weight_minus_lr_times_grad(net_16_8_4_2: nn.Sequential) -> None:
    expected = [p.detach() - 0.001 * p.grad for p in net_16_8_4_2.parameters()]
    optim.SGD(net_16_8_4_2.parameters(), lr=0.001).step()
    for parameter, by_hand in zip(net_16_8_4_2.parameters(), expected, strict=True):
        assert torch.equal(parameter, by_hand)


def test_the_trainers_step_is_that_step(tmp_path) -> None:
    """One batch through the real Trainer leaves what the formula says."""
    overrides = ["experiment=net_16_8_4_2", "debug=fast", "trainer.limit_train_batches=1", "optimizer.momentum=0"]
    config = configure(tmp_path, *overrides)
    train(config)
    torch.manual_seed(config["seed"])
    data = set_up(config)
    net = build.net(config, data.schema)
    rows, labels = next(iter(data.train_dataloader()))
    nn.CrossEntropyLoss()(net(rows), labels).backward()
    after = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(after[f"net.{name}"], parameter - 0.001 * parameter.grad, rtol=1e-6, atol=1e-7)


def test_the_threshold_is_half_and_can_be_changed() -> None:
    probabilities = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.2, 0.8]])
    assert decide(probabilities).tolist() == [0, 1, 1]
    assert decide(probabilities, threshold=0.4).tolist() == [1, 1, 1]
    assert decide(probabilities, threshold=0.9).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="2 classes"):
        decide(torch.ones(1, 3) / 3, threshold=0.5)


def test_the_gradient_is_zero_at_a_minimum() -> None:
    """Cross-entropy of a linear net is convex, so descending far enough ends where the gradient vanishes."""
    torch.manual_seed(0)
    rows, labels = torch.randn(64, 3, dtype=torch.float64), torch.randint(3, (64,))
    net = nn.Linear(3, 3).double()
    optimizer = optim.LBFGS(net.parameters(), max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(rows), labels)
        loss.backward()
        return loss

    closure()
    before = net.weight.grad.norm().item()
    optimizer.step(closure)
    closure()
    assert before > 0.01
    assert net.weight.grad.norm().item() < 1e-4


def test_without_activations_depth_adds_nothing() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(5, 7).double(), nn.Linear(7, 3).double()
    rows = torch.randn(9, 5, dtype=torch.float64)
    merged = F.linear(rows, second.weight @ first.weight, second.weight @ first.bias + second.bias)
    torch.testing.assert_close(nn.Sequential(first, second)(rows), merged)


def test_non_linearity_matters_on_two_moons(tmp_path) -> None:
    accuracy = partial(train_accuracy, tmp_path)
    assert accuracy("mlp") > accuracy("linear") + 0.05


def train_accuracy(folder, model: str) -> float:
    return train(configure(folder / model, "data=moons", f"model={model}", "trainer.max_epochs=30"))["test/accuracy"]
