"""What a finished run says of some examples: as in its evaluation, and of no others."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.runtime.errors import UsageError
from tests.support.training import W, X, clusters, make_settings, make_shard, run_stack, scores, turns
from trainer.inference.answers import answers
from trainer.inference.loading import LoadedRun, load_run

ROWS = np.array([1, 2, 6, 9])


def trained(tmp_path: Path, model: str, **changes: object) -> LoadedRun:
    labels = turns(12)
    labels[4] = -1  # in no prediction
    shard = make_shard(tmp_path / "shard.h5", test=clusters("test", labels, (X, W), seed=1))
    (run,) = run_stack(tmp_path, [make_settings(model, shard, **changes)], [shard])
    return load_run(run)


@pytest.mark.parametrize("model", ["sshmvae", "sshmvae-kl", "jmvae"])
def test_answers_are_the_predictions_for_these_examples(tmp_path: Path, model: str) -> None:
    loaded = trained(tmp_path, model)
    by_given = answers(loaded, ROWS)
    assert [(given, how) for given, by_completion in by_given.items() for how in by_completion] == list(
        scores(loaded.run.result())
    )
    for given, by_completion in by_given.items():
        log_q, labels = loaded.trained.predictions(given.split("+"))
        assert len(labels) == 11
        np.testing.assert_allclose(next(iter(by_completion.values())), log_q[ROWS], atol=1e-5)
        for completed in by_completion.values():
            assert completed.shape == (len(ROWS), 3)
            np.testing.assert_allclose(np.exp(completed).sum(-1), 1, atol=1e-5)


def test_answers_to_all_examples_have_the_accuracies_of_the_evaluation(tmp_path: Path) -> None:
    loaded = trained(tmp_path, "sshmvae")
    (labels,) = loaded.data.test_labels()
    by_given = answers(loaded, np.arange(len(labels)))
    assert {
        (given, how): float((log_q.argmax(-1) == labels).mean())
        for given, by_completion in by_given.items()
        for how, log_q in by_completion.items()
    } == pytest.approx(scores(loaded.run.result()))


def test_answers_are_the_same_again_and_from_streamed_data(tmp_path: Path) -> None:
    loaded, streamed = (trained(tmp_path / str(window), "sshmvae", window=window) for window in (None, 32))
    first, again, other = (answers(run, ROWS) for run in (loaded, loaded, streamed))
    for given, by_completion in first.items():
        for how, log_q in by_completion.items():
            np.testing.assert_array_equal(again[given][how], log_q)
            assert other[given][how].shape == log_q.shape


def test_without_a_bound_there_is_no_iterative_sampling(tmp_path: Path) -> None:
    by_given = answers(trained(tmp_path, "sshmvae", objective="classifier", labels="all"), ROWS)
    assert {how for by_completion in by_given.values() for how in by_completion} == {"zeros", "none"}


def test_a_classifier_without_a_latent_variable_has_none_of_these(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no latent variable"):
        answers(trained(tmp_path, "ct-svm"), ROWS)
