"""What a model sees of a modality alone, in training and in a test."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from tests.support.steps import ready
from trainer.models.interface import Classifier
from trainer.nn.batch_norm import ReplicaBatchNorm
from trainer.nn.presence import present_rows
from trainer.objective.regularisers import penalties
from trainer.objective.views import Views, singles


def test_a_modality_alone_is_what_the_model_would_be_given(tmp_path: Path) -> None:
    step, x, _ = ready(tmp_path)
    assert {m: list(part) for m, part in singles(cast(Classifier, step.model), x).items()} == {"x": ["x"], "w": ["w"]}
    step, x, _ = ready(tmp_path, "sshmvae")
    first, second = singles(cast(Classifier, step.model), x).values()
    assert torch.equal(first["x"], x["x"])
    assert not first["w"].any()
    assert present_rows(first, "x") is None
    assert not cast(Tensor, present_rows(first, "w")).any()
    assert torch.equal(second["w"], x["w"])
    assert not second["x"].any()


@pytest.mark.parametrize("model", ["ssmvae", "sshmvae", "sshmvae-kl"])
def test_a_modality_alone_is_taught_as_it_is_tested(tmp_path: Path, model: str) -> None:
    """Of models that are given zeros: with running statistics, which it leaves alone. No perturbation moves a zero."""
    step, x, y = ready(tmp_path, model, partial_smoothness=1)
    classifier = cast(Classifier, step.model)
    zeros = "encoders" not in classifier.completions
    norms = [norm for norm in step.model.modules() if isinstance(norm, ReplicaBatchNorm)]
    for norm in norms:
        norm.mean.normal_()
        norm.variance.uniform_(0.5, 2)
    before = [norm.mean.clone() for norm in norms]
    taught = Views(classifier, x, y).singles
    assert all(torch.equal(norm.mean, mean) for norm, mean in zip(norms, before, strict=True)) == zeros

    asked = list[Mapping[str, Tensor]]()
    if zeros:
        classify = classifier.classify
        step.model.classify = lambda part, **given: (asked.append(part), classify(part, **given))[1]  # type: ignore[assignment]
        penalties(step.settings, step.noise, Views(classifier, x))
        assert any(not torch.equal(part["x"], x["x"]) and part["x"].any() for part in asked)
        for part in asked:
            assert not part["x"].any() or not part["w"].any() or torch.equal(part["x"], x["x"])
        assert sum(not part["w"].any() for part in asked) > 1
    step.model.eval()
    tested = singles(classifier, x)
    for m, view in taught.items():
        assert torch.allclose(view.log_q, classifier.classify(tested[m]), atol=1e-6) == zeros
