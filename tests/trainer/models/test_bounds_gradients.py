"""Which parameters each part of a bound reaches, and that replicas have nothing to do with one another."""

import pytest
import torch
from torch import Tensor

from tests.support.tiny_models import ALL_MODELS, KL_MODELS, LABELLED_MODELS, Tiny, conditionals, tiny


def reached(subject: Tiny, scalar: Tensor) -> set[str]:
    """Names of the distributions whose parameters have a gradient; a distribution has it in all of them or in none."""
    for parameter in subject.model.parameters():
        parameter.grad = None
    scalar.backward()
    names = set()
    for name, conditional in conditionals(subject.model).items():
        learns = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in conditional.parameters()]
        assert all(learns) or not any(learns), f"{name} has a gradient in some of its parameters only: {learns}"
        names |= {name} if all(learns) else set()
    return names


ENCODERS = {"jmvae-kl": {"q(z|x)", "q(z|w)"}, "sshmvae-kl": {"q(a|x)", "q(a|w)"}}
CLASSIFIER = {"m2": "q(y|x)", "ssmvae": "q(y|x,w)", "sdgm": "q(y|x,a)", "sshmvae": "q(y|a)", "sshmvae-kl": "q(y|a)"}
LIKELIHOOD = {
    "m2": {"q(y|x)"},
    "ssmvae": {"q(y|x,w)"},
    "sdgm": {"q(y|x,a)", "q(a|x)"},
    "sshmvae": {"q(y|a)", "q(a|x,w)"},
    "sshmvae-kl": {"q(y|a)", "q(a|x,w)"},
}
JOINT = {"jmvae-kl": "q(z|x,w)", "sshmvae-kl": "q(a|x,w)"}


@pytest.mark.parametrize("label", ["exact", "gumbel"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_the_unlabelled_bound_reaches_everything_but_the_single_encoders(name: str, label: str) -> None:
    subject = tiny(name, label=label, z=2)
    all_names = set(conditionals(subject.model))
    assert reached(subject, subject.model.bound(subject.x(64)).value.sum()) == all_names - ENCODERS.get(name, set())


@pytest.mark.parametrize("name", LABELLED_MODELS)
def test_the_labelled_bound_reaches_the_classifier_through_its_log_likelihood_alone(name: str) -> None:
    subject = tiny(name, z=2)
    all_names = set(conditionals(subject.model))
    bound = subject.model.bound(subject.x(64), subject.y(64))
    assert bound.log_q_y is not None
    assert reached(subject, bound.value.sum()) == all_names - ENCODERS.get(name, set()) - {CLASSIFIER[name]}
    bound = subject.model.bound(subject.x(64), subject.y(64))
    assert bound.log_q_y is not None
    assert reached(subject, bound.log_q_y.sum()) == LIKELIHOOD[name]


@pytest.mark.parametrize("name", KL_MODELS)
def test_the_divergence_reaches_the_encoders_and_the_joint_one(name: str) -> None:
    subject = tiny(name, z=2)
    divergence = subject.model.bound(subject.x(64)).divergence
    assert reached(subject, sum(divergence.values()).sum()) == ENCODERS[name] | {JOINT[name]}
    for encoder in ENCODERS[name]:
        alone = subject.model.bound(subject.x(64)).divergence[encoder]
        assert reached(subject, alone.sum()) == {encoder, JOINT[name]}


@pytest.mark.parametrize("label", ["exact", "gumbel"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_the_bound_of_one_replica_has_no_gradient_in_another(name: str, label: str) -> None:
    subject = tiny(name, label=label, replicas=3)
    subject.model.train()
    bound = subject.model.bound(subject.x(16))
    sum([bound.value, *bound.divergence.values()])[1].sum().backward()
    total = torch.zeros(3)
    for parameter in subject.model.parameters():
        total += parameter.grad.abs().flatten(1).sum(1)
    assert total[0] == total[2] == 0
    assert total[1] > 0


@pytest.mark.parametrize("label", ["exact", "gumbel"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_a_stack_of_three_is_three_stacks_of_one(name: str, label: str) -> None:
    """With the same seeds: the same initial weights, the same noise, the same bounds, in training too."""
    stack = tiny(name, label=label, replicas=3, seed=4, z=2)
    singles = [tiny(name, label=label, replicas=1, seed=4 + r, z=2) for r in range(3)]
    for r, single in enumerate(singles):
        with torch.no_grad():
            for alone_tensor, stacked_tensor in zip(
                single.model.state_dict().values(), stack.model.state_dict().values(), strict=True
            ):
                alone_tensor.copy_(stacked_tensor[r : r + 1])
    x = stack.x(8)
    for mode in (False, True):
        stack.model.train(mode)
        together = stack.model.bound(x)
        for r, single in enumerate(singles):
            single.model.train(mode)
            alone = single.model.bound({m: v[r : r + 1] for m, v in x.items()})
            for part in ("log_p", "log_q", "divergence"):
                for term, value in getattr(together, part).items():
                    torch.testing.assert_close(getattr(alone, part)[term][0], value[r], rtol=1e-4, atol=1e-4)
    for r, single in enumerate(singles):
        for alone_tensor, stacked_tensor in zip(
            single.model.state_dict().values(), stack.model.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(alone_tensor[0], stacked_tensor[r])


@pytest.mark.parametrize("label", ["observed", "exact", "gumbel"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_gradients_are_differences_of_the_bound_under_the_same_noise(name: str, label: str) -> None:
    """Along each distribution's own gradient: so through the samples, the relaxed label and the sum's weights too."""
    subject = tiny(name, label="exact" if label == "exact" else "gumbel", replicas=1, z=2)
    batch, step = 256, 2e-3
    x, y = subject.x(batch), subject.y(batch)

    def total() -> Tensor:
        with subject.noise.separate_streams("one draw"):
            bound = subject.model.bound(x, y if label == "observed" else None)
        parts = [bound.value, *bound.divergence.values(), *([] if bound.log_q_y is None else [bound.log_q_y])]
        return sum(part.double().mean() for part in parts)

    subject.model.zero_grad()
    total().backward()
    for distribution, conditional in conditionals(subject.model).items():
        parameters = list(conditional.parameters())
        gradients = [p.grad.clone() for p in parameters]
        length = float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
        ends = []
        with torch.no_grad():
            for sign in (1, -2):  # there, and back to the other side
                for p, g in zip(parameters, gradients, strict=True):
                    p.add_(g, alpha=sign * step / length)
                ends.append(float(total()))
            for p, g in zip(parameters, gradients, strict=True):
                p.add_(g, alpha=step / length)
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(length, rel=0.02), distribution
