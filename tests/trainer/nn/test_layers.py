"""The notation, read and written; and each layer with a replica axis against the library's own, replica by replica."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.runtime.errors import UsageError
from trainer.nn.batch_norm import ReplicaBatchNorm, frozen_statistics, only_rows, running_statistics
from trainer.nn.layers import (
    MLP,
    ReplicaDropout,
    ReplicaLinear,
    concatenate,
    over_classes,
)
from trainer.nn.notation import Chain, Dense, Dropout, Notation, expand, parse
from trainer.nn.rng import Noise

R, B, K = 3, 8, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The notation

units = st.integers(1, 5000).map(str)
layers = st.lists(
    st.one_of(st.builds(Dense, units, st.booleans()), st.builds(Dropout, st.floats(1e-6, 0.999999), st.booleans())),
    max_size=3,
).map(tuple)
names = st.sampled_from(["X", "x", "y", "rgb.left", "D4", "Dropout0.5", "é_1"])  # whatever has no - , ( ) or space
chains = st.recursive(
    st.builds(Chain, names, layers),
    lambda inner: st.builds(Chain, st.lists(inner, min_size=1, max_size=3).map(tuple), layers),
    max_leaves=4,
)
notations = st.builds(Notation, chains, st.builds(Dense, st.one_of(units, st.sampled_from(["K", "x"]))))


@given(notations)
def test_what_is_written_is_read_back(notation: Notation) -> None:
    assert parse(str(notation)) == notation


@given(notations, st.integers(0, 3))
def test_spaces_make_no_difference(notation: Notation, spaces: int) -> None:
    spaced = str(notation).replace("-", " - ").replace("(", f"({' ' * spaces}").replace(", ", "," + " " * spaces)
    assert parse(f"  {spaced} ") == notation


def test_a_network_of_the_appendix_as_a_tree() -> None:
    branch = (Dense("512", True), Dense("512", True))
    assert parse("(y, x-D512BR-D512BR)-D1024BR-Dropout0.5, D51") == Notation(
        Chain((Chain("y"), Chain("x", branch)), (Dense("1024", True), Dropout(0.5))), Dense("51")
    )
    assert parse("a, D51").units == 51


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected more, got the end"),
        ("x-D4BR", "expected ,, got the end"),
        ("x-D4BR, D", "'D' is not a layer"),
        ("x-D4BR, D3BR", "it must end in a plain linear output, such as D128"),
        ("x-D4BR, Dropout0.5", "it must end in a plain linear output, such as D128"),
        ("x-E512, D4", "'E512' is not a layer"),
        ("x-D512RB, D4", "'D512RB' is not a layer"),
        ("x-D0BR, D4", "'D0BR' is not a layer"),
        ("x, D0", "'D0' is not a layer"),
        ("x-D3.5, D4", "'D3.5' is not a layer"),
        ("x-Dropout0.0, D4", "'Dropout0.0' is not a layer"),
        ("x-Dropout1.5, D4", "'Dropout1.5' is not a layer"),
        ("x-Dropout1, D4", "'Dropout1' is not a layer"),
        ("x-RowDropout, D4", "'RowDropout' is not a layer"),
        ("x-DKBR, D4", "DKBR can only be the output"),
        ("(x-Dx, y)-D4, D4", "Dx can only be the output"),
        ("x--D4, D4", "'-' is not a layer"),
        ("(x, w-D4BR, D4", "expected ), got the end"),
        ("(x w)-D4, D4", "expected ), got w"),
        ("()-D4, D4", "an input's name is missing before ')'"),
        ("-D4, D4", "an input's name is missing before '-'"),
        (", D4", "an input's name is missing before ','"),
        ("x-D4, D4, D5", "unexpected ',' after the output"),
        ("x-D4, D4)", "unexpected ')' after the output"),
        ("(" * 3000, "its brackets are more than 20 deep"),
    ],
)
def test_what_is_not_in_the_notation_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(text)
    assert refusal.value.message == f"the network '{text}' is not in the notation: {why}"
    assert refusal.value.hint == "an example: (z, y)-D512BR-D512BR, D128"


@pytest.mark.parametrize(
    ("template", "modality", "expected"),
    [
        ("(X-D4BR)-D3BR, DK", None, "(left-D4BR, right.1-D4BR)-D3BR, D5"),
        ("(y, X-D4BR)-D3BR, D2", None, "(y, left-D4BR, right.1-D4BR)-D3BR, D2"),
        ("X-D4BR, D2", None, "(left-D4BR, right.1-D4BR), D2"),
        ("(X), D2", None, "(left, right.1), D2"),
        ("((X-D4BR)-D3, y)-D2, DK", None, "((left-D4BR, right.1-D4BR)-D3, y)-D2, D5"),
        ("x-D4BR-Dropout0.25, D2", "right.1", "right.1-D4BR-Dropout0.25, D2"),
        ("(z, y)-D4BR, Dx", "right.1", "(z, y)-D4BR, D20"),
        ("(z, y)-D4BR, Dx", "left", "(z, y)-D4BR, D10"),
        ("x-D4BR, D2", None, "x-D4BR, D2"),
    ],
)
def test_a_template_is_filled_in(template: str, modality: str | None, expected: str) -> None:
    assert str(expand(parse(template), {"left": 10, "right.1": 20}, 5, modality)) == expected


def test_one_modality_is_one_branch() -> None:
    assert str(expand(parse("X-D4BR, D2"), {"v": 3}, 5)) == "v-D4BR, D2"
    assert str(expand(parse("(X-D4BR)-D3BR, D2"), {"v": 3}, 5)) == "(v-D4BR)-D3BR, D2"


def test_the_width_of_no_modality_is_refused() -> None:
    with pytest.raises(UsageError, match="ends in Dx, but does not belong to a single modality"):
        expand(parse("z-D4BR, Dx"), {"x": 3}, 5)


# Layers, each against the library's


def test_a_replica_linear_is_nn_linear_for_each_replica() -> None:
    replicas = ReplicaLinear(5, 4, Noise(range(R)))
    with torch.no_grad():
        replicas.bias.copy_(normal(R, 4))
    x = normal(R, B, 5).requires_grad_()
    out = replicas(x)
    weights = normal(R, B, 4, seed=1)
    (out * weights).sum().backward()
    for r in range(R):
        linear = nn.Linear(5, 4)
        with torch.no_grad():
            linear.weight.copy_(replicas.weight[r].T)
            linear.bias.copy_(replicas.bias[r])
        x_r = x[r].detach().requires_grad_()
        expected = linear(x_r)
        (expected * weights[r]).sum().backward()
        torch.testing.assert_close(out[r], expected)
        torch.testing.assert_close(x.grad[r], x_r.grad)
        torch.testing.assert_close(replicas.weight.grad[r], linear.weight.grad.T)
        torch.testing.assert_close(replicas.bias.grad[r], linear.bias.grad)


def test_initial_weights_are_glorot_uniform_and_the_seeds_own() -> None:
    together, alone = ReplicaLinear(200, 100, Noise([5, 6, 7])), ReplicaLinear(200, 100, Noise([6]))
    torch.testing.assert_close(together.weight[1], alone.weight[0], rtol=0, atol=0)
    limit = math.sqrt(6 / 300)
    for weight in together.weight:
        assert weight.abs().max() <= limit
        assert weight.abs().max() > 0.99 * limit
        assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert (together.bias == 0).all()
    assert not torch.equal(together.weight[0], together.weight[1])


def library_norms(replicas: ReplicaBatchNorm) -> list[nn.BatchNorm1d]:
    norms = []
    for r in range(len(replicas.scale)):
        norm = nn.BatchNorm1d(replicas.scale.shape[1])
        with torch.no_grad():
            norm.weight.copy_(replicas.scale[r])
            norm.bias.copy_(replicas.shift[r])
            norm.running_mean.copy_(replicas.mean[r])
            norm.running_var.copy_(replicas.variance[r])
        norms.append(norm)
    return norms


def random_norm(features: int = 5) -> ReplicaBatchNorm:
    norm = ReplicaBatchNorm(features, R)
    with torch.no_grad():
        for i, tensor in enumerate((norm.scale, norm.shift, norm.mean, norm.variance)):
            tensor.copy_(normal(R, features, seed=10 + i).abs() + 0.1)
    return norm


@pytest.mark.parametrize("path", ["_normalise_each", "_normalise_together"])
@pytest.mark.parametrize("batch", [2, 8])
def test_a_replica_batch_norm_is_the_librarys_for_each_replica(path: str, batch: int) -> None:
    """In training, by both paths: outputs, gradients, running statistics over several steps; then in evaluation."""
    replicas = random_norm()
    norms = library_norms(replicas)
    for step in range(3):
        x = (2 * normal(R, batch, 5, seed=step) + 1).requires_grad_()
        weights = normal(R, batch, 5, seed=100 + step)
        out = getattr(replicas, path)(x, frozen=False)
        replicas.zero_grad()
        (out * weights).sum().backward()
        for r, norm in enumerate(norms):
            norm.zero_grad()
            x_r = x[r].detach().requires_grad_()
            expected = norm(x_r)
            (expected * weights[r]).sum().backward()
            close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(out[r], expected, **close)
            torch.testing.assert_close(x.grad[r], x_r.grad, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(replicas.scale.grad[r], norm.weight.grad, **close)
            torch.testing.assert_close(replicas.shift.grad[r], norm.bias.grad, **close)
            torch.testing.assert_close(replicas.mean[r], norm.running_mean, **close)
            torch.testing.assert_close(replicas.variance[r], norm.running_var, **close)
    replicas.eval()
    x = normal(R, batch, 5, seed=50)
    for r, norm in enumerate(norms):
        torch.testing.assert_close(replicas(x)[r], norm.eval()(x[r]), rtol=1e-4, atol=1e-5)


def test_frozen_statistics_normalise_by_the_batch_and_stay() -> None:
    norm = random_norm()
    before = norm.mean.clone(), norm.variance.clone()
    x = normal(R, B, 5)
    with frozen_statistics():
        frozen = norm(x)
        assert torch.equal(norm.mean, before[0])
        assert torch.equal(norm.variance, before[1])
    torch.testing.assert_close(norm(x), frozen)
    assert not torch.equal(norm.mean, before[0])
    assert not torch.equal(norm.variance, before[1])


@pytest.mark.parametrize(
    "context", [frozen_statistics, running_statistics, lambda: only_rows(torch.arange(B).expand(R, B) < 2)]
)
def test_a_context_of_statistics_ends_with_an_error_too(context: Callable[[], AbstractContextManager[None]]) -> None:
    norm, same = random_norm(), random_norm()
    same.load_state_dict(norm.state_dict())
    with pytest.raises(ZeroDivisionError), context():
        1 / 0  # noqa: B018
    x = normal(R, B, 5)
    assert torch.equal(norm(x), same(x))
    assert torch.equal(norm.mean, same.mean)


def test_dropout_keeps_its_share_scales_it_up_and_rests_in_evaluation() -> None:
    dropout = ReplicaDropout(0.25, Noise(range(R)))
    out = dropout(torch.ones(R, 100, 100))
    kept = out != 0
    torch.testing.assert_close(out[kept], torch.full((int(kept.sum()),), 1 / 0.75))
    assert ((kept.float().mean((1, 2)) - 0.75).abs() < 5 * math.sqrt(0.75 * 0.25 / 10_000)).all()
    assert not torch.equal(kept[0], kept[1])
    alone = ReplicaDropout(0.25, Noise([1]))(torch.ones(1, 100, 100))
    assert torch.equal(out[1], alone[0])
    x = normal(R, B, 5)
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_of_rows_takes_a_row_whole() -> None:
    dropout = ReplicaDropout(0.25, Noise(range(R)), of_rows=True)
    out = dropout(torch.ones(R, 10_000, 5))
    torch.testing.assert_close(out.amax(-1), out.amin(-1))
    kept = out[..., 0] != 0
    torch.testing.assert_close(out[kept], torch.full((int(kept.sum()), 5), 1 / 0.75))
    assert ((kept.float().mean(1) - 0.75).abs() < 5 * math.sqrt(0.75 * 0.25 / 10_000)).all()
    alone = ReplicaDropout(0.25, Noise([1]), of_rows=True)(torch.ones(1, 10_000, 5))
    assert torch.equal(out[1], alone[0])
    without_axis = ReplicaDropout(0.25, Noise([1]), of_rows=True)(torch.ones(10_000, 5))
    assert torch.equal(without_axis, alone[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(X-D4BR-D4)-D3BR, D2", "(X-D4BR-D4-RowDropout0.25)-D3BR, D2"),
        ("((X-D4), y)-D3, D2", "((X-D4-RowDropout0.25), y)-D3, D2"),
        ("(z, y)-D3BR, Dx", "(z, y)-D3BR, Dx"),
        ("x-D4BR, D2", "x-D4BR, D2"),
    ],
)
def test_each_modality_of_a_joint_network_can_be_dropped(text: str, expected: str) -> None:
    assert str(parse(text).dropping(0.25)) == expected


# Chains of layers


def loop(network: MLP, chain: Chain, inputs: dict[str, Tensor], r: int) -> Tensor:
    """One replica's network in evaluation, layer by layer, with plain products and no batched anything."""
    if isinstance(chain.source, str):
        x = inputs[chain.source]
    else:
        parts = zip(cast(Iterable[MLP], network.parts), chain.source, strict=True)
        x = torch.cat([loop(part, c, inputs, r) for part, c in parts], -1)
    modules: Iterator[Any] = iter(network.layers)
    for layer in chain.layers:
        module = next(modules)
        if isinstance(layer, Dropout):
            continue
        x = x @ module.weight[r] + (0 if layer.batch_norm_relu else module.bias[r])
        if layer.batch_norm_relu:
            norm = next(modules)
            next(modules)
            x = (x - norm.mean[r]) / (norm.variance[r] + 1e-5).sqrt() * norm.scale[r] + norm.shift[r]
            x = x.clamp_min(0)
    return x


def make_network(text: str, widths: dict[str, int], replicas: int = R) -> tuple[MLP, Chain]:
    chain = parse(text).mlp
    network = MLP(chain, widths, Noise(range(replicas)))
    with torch.no_grad():
        for i, norm in enumerate(m for m in network.modules() if isinstance(m, ReplicaBatchNorm)):
            for j, tensor in enumerate((norm.scale, norm.shift, norm.mean, norm.variance)):
                tensor.copy_(normal(*tensor.shape, seed=20 * i + j).abs() + 0.1)
    return network, chain


WIDTHS = {"x": 5, "w": 4, "y": K}


@pytest.mark.parametrize(
    "text",
    [
        "x-D6BR-D3BR, D1",
        "(y, x-D3BR-D2, w-D6BR)-D4BR-Dropout0.5, D1",
        "(x, (w-D3, y)-D2BR), D1",
        "(x), D1",
        "y, D1",
    ],
)
def test_a_network_is_its_layers_one_after_another(text: str) -> None:
    network, chain = make_network(text, WIDTHS)
    network.eval()
    x = {name: normal(R, B, width, seed=i) for i, (name, width) in enumerate(WIDTHS.items())}
    out = network(x)
    assert out.shape == (R, B, network.width)
    for r in range(R):
        torch.testing.assert_close(
            out[r], loop(network, chain, {n: v[r] for n, v in x.items()}, r), rtol=1e-4, atol=1e-5
        )


def test_an_input_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="names the input 'v'; known: x, w, y"):
        MLP(parse("(x, v-D3), D1").mlp, WIDTHS, Noise([0]))


@pytest.mark.parametrize("training", [False, True])
def test_classes_folded_into_the_batch_are_a_loop_over_classes(training: bool) -> None:
    """In training too where there is no batch norm; with it, the statistics are those of all classes together."""
    text = "(x-D3, y)-D6-D2, D1" if training else "(x-D3BR, y)-D6BR-Dropout0.5-D2, D1"
    network, _ = make_network(text, WIDTHS)
    network.train(training)
    x, y = normal(R, B, 5), torch.eye(K)[:, None, None].expand(K, R, B, K)
    together = network({"x": x, "y": y})
    assert together.shape == (K, R, B, 2)
    for k in range(K):
        torch.testing.assert_close(together[k], network({"x": x, "y": y[k]}), rtol=1e-4, atol=1e-5)


def test_batch_norm_of_folded_classes_takes_the_statistics_of_all_of_them() -> None:
    norm = random_norm()
    x = normal(K, R, B, 5)
    out = over_classes(norm, x)
    for r in range(R):
        every = x[:, r].reshape(K * B, 5)
        expected = (every - every.mean(0)) / (every.var(0, correction=0) + 1e-5).sqrt() * norm.scale[r] + norm.shift[r]
        torch.testing.assert_close(out[:, r].reshape(K * B, 5), expected, rtol=1e-4, atol=1e-5)


def test_concatenation_repeats_what_has_no_class_axis() -> None:
    a, b, c = normal(R, B, 2), normal(K, R, B, 3), normal(R, B, 1)
    out = concatenate([a, b, c])
    assert out.shape == (K, R, B, 6)
    for k in range(K):
        assert torch.equal(out[k], torch.cat([a, b[k], c], -1))
    assert torch.equal(concatenate([a, c]), torch.cat([a, c], -1))
    assert concatenate([a]) is a


def test_a_stack_of_three_networks_is_three_networks_of_one() -> None:
    """The same seeds give the same weights, dropout, outputs, gradients and running statistics."""
    chain = parse("(x-D6BR, w)-D5BR-Dropout0.5-D3, D1").mlp
    stack = MLP(chain, WIDTHS, Noise([4, 5, 6]))
    x = {name: normal(R, B, width, seed=i) for i, (name, width) in enumerate(WIDTHS.items())}
    out = stack(x)
    out.square().sum().backward()
    for r, seed in enumerate((4, 5, 6)):
        single = MLP(chain, WIDTHS, Noise([seed]))
        alone = single({name: v[r : r + 1] for name, v in x.items()})
        alone.square().sum().backward()
        torch.testing.assert_close(alone[0], out[r], rtol=1e-4, atol=1e-5)
        for alone_parameter, stacked_parameter in zip(single.parameters(), stack.parameters(), strict=True):
            torch.testing.assert_close(alone_parameter[0], stacked_parameter[r], rtol=0, atol=0)
            torch.testing.assert_close(alone_parameter.grad[0], stacked_parameter.grad[r], rtol=1e-3, atol=1e-4)
        for alone_buffer, stacked_buffer in zip(single.buffers(), stack.buffers(), strict=True):
            torch.testing.assert_close(alone_buffer[0], stacked_buffer[r], rtol=1e-4, atol=1e-5)
