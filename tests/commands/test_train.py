"""`mmssl train`, `evaluate` and `runs`, as a user calls them."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from distributed import LocalCluster
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.runtime.errors import StorageError
from pipeline.shards.shard import Shard
from tests.support.commands import Command, start
from tests.support.small_networks import SDGM, as_toml
from trainer.baselines import references
from trainer.baselines.rival_task import load_task
from trainer.settings.run_settings import build


def test_train_on_the_bundled_digits_ends_in_a_table_and_the_runs_folder(mmssl: Command, small_kl: Path) -> None:
    done = mmssl("train", "sshmvae-kl", "--config", small_kl, "--epochs", 15, "--lr", 0.01, "--seeds", "0..1")
    assert done.code == 0
    assert "--data hm-mnist" in done.err  # how to choose other data
    shown, _, below = done.out.partition("for reference")
    lines = [line.split("│")[1:-1] for line in shown.splitlines() if "│" in line]
    table = {row[0].strip(): row for row in lines}
    assert set(table) == {"x", "w", "x+w"}
    assert [cell.strip() for cell in table["x"]][1::4] == ["encoders", "2"]
    assert "±" in table["x+w"][2]
    assert float(table["x+w"][2].split("±")[0]) > 50  # chance is 10
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in below.splitlines() if "│" in line]
    assert [row[:2] for row in lines] == [
        ["logistic regression", "x"], ["", "w"], ["", "x+w"], ["LS+SVC", "x"], ["", "w"], ["", "x+w"]
    ]  # fmt: skip
    assert all(row[5] == "2" and float(row[2].split("±")[0]) > 50 for row in lines)
    folders = [Path(line) for line in done.out.splitlines() if line.startswith("/")]
    assert len(folders) == 2
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {
            "settings.json", "labelled.txt", "metrics.csv", "weights.safetensors", "result.json", "provenance.json",
            "reference.json",
        }  # fmt: skip
        assert len((folder / "labelled.txt").read_text().split()) == 100
        assert len((folder / "metrics.csv").read_text().splitlines()) == 16


def test_json_is_all_that_standard_output_holds(mmssl: Command, small: Path) -> None:
    done = mmssl("train", "ssmvae", "--config", small, "--epochs", 1, "--json")
    (run,) = done.json
    assert {score["given"] for score in run["result"]["scores"]} == {"x", "w", "x+w"}
    assert run["settings"]["networks"]["q(y|X)"] == "(X-D16BR)-D16BR, DK"


def test_references_are_those_of_the_runs_own_labels_and_no_reference_leaves_them_out(
    mmssl: Command, small: Path
) -> None:
    command = ("train", "ssmvae", "--config", small, "--epochs", 1, "--labels", 20, "--seeds", "0..1")
    without = mmssl(*command, "--no-reference")
    assert without.code == 0
    assert "for reference" not in without.out
    assert not list(Path("workspace").rglob("reference.json"))
    assert [run["reference"] for run in mmssl(*command, "--no-reference", "--json").json] == [None, None]
    runs = mmssl(*command, "--json").json  # nothing is trained again; the references are added
    shard = Shard.open(next(Path("workspace/shards").glob("*.h5")))
    for run in runs:
        settings = build(run["settings"])
        task = load_task(settings, shard)
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        classifier.fit(task.train["w"][task.labelled], task.labels[task.labelled])
        (score,) = (s for s in run["reference"]["logistic-regression"]["scores"] if s["given"] == "w")
        assert score["accuracy"] == classifier.score(task.test["w"], task.test_labels)
        assert json.loads((Path(run["folder"]) / "reference.json").read_text()) == run["reference"]
    assert runs[0]["reference"] != runs[1]["reference"]  # another seed, other labels
    assert "│ LS+SVC" in mmssl(*command).out
    assert "LS+SVC" not in mmssl(*command, "--no-reference").out


def test_evaluate_adds_missing_references_and_a_report_shows_them(mmssl: Command, small: Path) -> None:
    (run,) = mmssl(
        "train", "ssmvae", "--config", small, "--epochs", 1, "--labels", 20, "--no-reference", "--json"
    ).json  # fmt: skip
    mmssl("report", "--no-models", "--markdown", "without.md")
    assert "for reference" not in Path("without.md").read_text()
    assert "reference" not in mmssl("evaluate", run["folder"], "--no-reference", "--json").json[0]
    (evaluated,) = mmssl("evaluate", run["folder"], "--json").json
    scores = evaluated["reference"]["ls-svc"]["scores"]
    assert [score["given"] for score in scores] == ["x", "w", "x+w"]
    shown = mmssl("evaluate", run["folder"])
    assert f"{100 * scores[0]['accuracy']:.2f}" in shown.out.partition("LS+SVC")[2]
    mmssl("report", "--no-models", "--markdown", "with.md", "--html", "with.html", "--json", "with.json")
    cells = " | ".join(f"{100 * score['accuracy']:.2f}" for score in scores)
    assert f"| LS+SVC (for reference) | – | {cells} | 1 |" in Path("with.md").read_text()
    assert 'class="reference"' in Path("with.html").read_text()
    (reported,) = json.loads(Path("with.json").read_text())["runs"]
    assert reported["reference"] == evaluated["reference"]
    (Path(run["folder"]) / "reference.json").write_text('{"a": 1}')
    without = mmssl("report", "--no-models")  # they are left out, and the report is made
    assert (without.code, "does not hold references" in without.err) == (0, True)


def test_references_that_cannot_be_kept_are_shown_with_a_warning(
    mmssl: Command, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _: str) -> None:
        raise StorageError(f"cannot write {path}: the disk is read-only")

    monkeypatch.setattr(references, "write_atomically", refuse)
    done = mmssl("train", "ssmvae", "--config", small, "--epochs", 1)
    assert done.code == 0
    assert "│ LS+SVC" in done.out
    assert "the references are not kept: cannot write" in done.err
    assert not list(Path("workspace").rglob("reference.json"))


def test_a_reference_that_would_take_long_is_left_out_in_words(
    mmssl: Command, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "QUICK", 1e8)
    done = mmssl("train", "ssmvae", "--config", small, "--epochs", 1)
    assert "│ logistic regression" in done.out
    assert (
        "LS+SVC was left out: 1,437 training rows of 64 features in 10 classes, 100 of them labelled, would take it "
        "longer than a second or two; mmssl compare computes it." in done.out
    )
    assert "│ LS+SVC" not in done.out
    mmssl("report", "--no-models", "--markdown", "out.md")
    assert "LS+SVC was left out" in Path("out.md").read_text()


def test_the_same_command_again_does_nothing_and_says_the_same(mmssl: Command, small: Path) -> None:
    command = ("train", "ssmvae", "--config", small, "--epochs", 1, "--alpha", "0.1,1")
    first = mmssl(*command)
    stamps = {path: path.stat().st_mtime_ns for path in Path("workspace/runs").rglob("*")}
    second = mmssl(*command)
    assert second.out == first.out
    assert "nothing is left to train" in second.err
    assert {path: path.stat().st_mtime_ns for path in Path("workspace/runs").rglob("*")} == stamps


def test_dry_run_prints_the_settings_and_trains_nothing(mmssl: Command) -> None:
    planned = mmssl("train", "sshmvae-kl", "--beta", "0.1,1,10", "--seeds", "0,3", "--epochs", 7, "--dry-run").json
    assert [(job["settings"]["seed"], job["settings"]["beta"]) for job in planned] == [
        (0, 0.1), (0, 1), (0, 10), (3, 0.1), (3, 1), (3, 10)
    ]  # fmt: skip
    assert all(job["settings"]["epochs"] == 7 for job in planned)
    assert not Path("workspace/runs").exists()


def test_evaluate_scores_a_run_anew_from_its_weights(mmssl: Command, small_kl: Path) -> None:
    (run,) = mmssl("train", "sshmvae-kl", "--config", small_kl, "--epochs", 2, "--json").json
    (again,) = mmssl("evaluate", run["folder"], "--json").json
    for old, new in zip(run["result"]["scores"], again["scores"], strict=True):
        assert {k: new[k] for k in ("given", "completion", "accuracy")} == {
            k: old[k] for k in ("given", "completion", "accuracy")
        }
        assert new["nll"] == pytest.approx(old["nll"], rel=1e-5)
    assert again["elbo"] == pytest.approx(run["result"]["elbo"], rel=1e-5)
    (sampled,) = mmssl("evaluate", run["folder"], "--samples", 20, "--json").json
    assert sampled["scores"] != again["scores"]
    assert "given" in mmssl("evaluate", run["folder"]).out


def test_runs_lists_what_is_there_and_draws_its_curves(mmssl: Command, small: Path) -> None:
    assert "no runs yet" in mmssl("runs").out
    mmssl("train", "ssmvae", "--config", small, "--epochs", 2)
    listed = mmssl("runs", "--curves", "curves.png")
    assert "2 of 2" in listed.out
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")
    assert [run["epochs"] for run in mmssl("runs", "--json").json] == [2]


def test_a_co_trained_system_on_the_same_command_line(mmssl: Command) -> None:
    done = mmssl("train", "ct-svm", "--epochs", 2, "--labels", 20)
    assert "ct-svm, hm-digits, 20 labels, 2 rounds" in done.out
    assert "own classifiers" in done.out
    (run,) = mmssl("runs", "--json").json
    assert (run["epochs"], run["result"]["elbo"]) == (2, None)
    again = mmssl("evaluate", run["folder"])
    assert "ELBO per test example: -" in again.out
    assert f"{100 * run['result']['scores'][0]['accuracy']:.2f}" in again.out
    assert "2 of 2 rounds" in mmssl("runs", "--curves", "curves.png").out
    assert Path("curves.png").exists()


def test_modality_restricts_what_a_model_sees(mmssl: Command) -> None:
    config = Path("sdgm.toml")
    config.write_text(as_toml(SDGM))
    refused = mmssl("train", "sdgm", "--config", config, "--epochs", 1)
    assert (refused.code, refused.sentence) == (2, "error: sdgm takes one modality")
    (run,) = mmssl("train", "sdgm", "--config", config, "--epochs", 1, "--modality", "w", "--json").json
    assert [score["given"] for score in run["result"]["scores"]] == ["w"]


def test_a_strangers_shard_of_three_modalities_trains_and_scores_every_subset(mmssl: Command, small_kl: Path) -> None:
    import numpy as np

    from pipeline.shards.shard import Modality
    from pipeline.shards.writing import PartData, write_shard

    rng = np.random.default_rng(0)

    def part(name: str, rows: int) -> PartData:
        labels = np.arange(rows) % 3
        return PartData(
            {
                "sound": (labels[:, None] + rng.normal(0, 0.5, (rows, 4))).astype(np.float32),
                "touch": np.abs(labels[:, None] + rng.normal(0, 0.5, (rows, 5))).astype(np.float32),
                "rgb.left": rng.random((rows, 3), dtype=np.float32),
            },
            labels,
            [f"{name}-{row}" for row in range(rows)],
        )

    kinds = [
        Modality("sound", 4, "gaussian"),
        Modality("touch", 5, "nonnegative"),
        Modality("rgb.left", 3, "bernoulli"),
    ]
    write_shard(Path("mine.h5"), dataset="a/b: mine", classes=["0", "1", "2"], modalities=kinds, train=part("a", 300), test=part("b", 90))  # fmt: skip  # noqa: E501
    done = mmssl(
        "train", "sshmvae-kl", "--data", "mine.h5", "--config", small_kl, "--labels", 30, "--epochs", 40,
        "--batch-size", 64, "--beta", 0.1, "--json",
    )  # fmt: skip
    (run,) = done.json
    accuracy = {score["given"]: score["accuracy"] for score in run["result"]["scores"]}
    assert len(accuracy) == 7
    assert accuracy["sound+touch"] > 0.6  # chance is a third; a pool of two encoders
    assert accuracy["sound+touch+rgb.left"] > 0.6
    assert Path(run["folder"]).parent == Path("workspace/runs").resolve()  # a name's slash makes no folder
    every = ["sound", "touch", "rgb.left", "sound+touch+rgb.left"]
    for of in run["reference"].values():
        assert [score["given"] for score in of["scores"]] == every
    assert mmssl("report", "--no-models", "--html", "r.html", "--markdown", "r.md").code == 0
    (line,) = (line for line in Path("r.md").read_text().splitlines() if line.startswith("| LS+SVC"))
    assert line.count(" – |") == 1 + 3  # the completion, and the three pairs


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_training_and_the_same_command_ends_as_if_undisturbed(
    tmp_path: Path, small_kl: Path, signal_: signal.Signals
) -> None:
    def command(out: str) -> tuple[object, ...]:
        return ("train", "sshmvae-kl", "--config", small_kl, "--epochs", 12, "--seeds", "0..1", "--out", out)

    def begin(out: str) -> "subprocess.Popen[str]":  # processes of their own: equal bits need equal circumstances
        return start(*command(out), cwd=tmp_path, MMSSL_ROOT=str(tmp_path / "workspace"))

    def finish(process: "subprocess.Popen[str]") -> int:
        process.communicate(timeout=120)
        return process.returncode

    assert finish(begin("undisturbed")) == 0
    process = begin("disturbed")
    assert process.stderr is not None
    seen = ""
    while "epoch 2/12" not in seen:
        seen = process.stderr.readline()
        assert seen, "the run ended before it could be stopped"
    process.send_signal(signal_)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 75
    assert f"stopped by {signal_.name}" in messages
    assert "Traceback" not in messages
    assert finish(begin("disturbed")) == 0
    for folder in (tmp_path / "undisturbed").iterdir():
        for name in ("weights.safetensors", "metrics.csv", "result.json", "labelled.txt", "settings.json"):
            disturbed = (tmp_path / "disturbed" / folder.name / name).read_bytes()
            assert disturbed == (folder / name).read_bytes(), name


def test_the_nll_of_the_table_is_the_results(mmssl: Command, small: Path) -> None:
    (run,) = mmssl("train", "ssmvae", "--config", small, "--epochs", 1, "--json").json
    stored = json.loads((Path(run["folder"]) / "result.json").read_text())
    assert stored["scores"] == run["result"]["scores"]


def test_a_cluster_trains_what_the_command_asks_for(mmssl: Command, small: Path) -> None:
    given = ("train", "ssmvae", "--config", small, "--epochs", 1, "--seeds", "0..1", "--json")
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        there = mmssl(*given, "--stack", 1, "--out", "there", "--scheduler", cluster.scheduler_address)
        assert "2 runs to train, in 2 stacks" in there.err
    assert len(there.json) == 2
    here = mmssl(*given, "--stack", 1, "--out", "here")
    for on_cluster, on_host in zip(there.json, here.json, strict=True):
        assert on_cluster["result"] == on_host["result"]
    assert "cannot reach a Dask scheduler" in mmssl(*given, "--out", "nowhere", "--scheduler", "nonsense").sentence
