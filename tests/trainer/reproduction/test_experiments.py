"""The paper's tables as data, and the plan that is made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets.resolve import shard_paths
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard
from trainer.evaluation.metrics import Evaluation, Score
from trainer.jobs.stacks import make_stacks
from trainer.models.registry import card
from trainer.reporting.comparison import Cell, Measured, Printed, read_result
from trainer.reporting.comparison_tables import markdown, text
from trainer.reproduction import printed_numbers as paper
from trainer.reproduction.experiments import EXPERIMENTS, NM, Spec, networks_with_a_of
from trainer.reproduction.measure import check_folder, measure, reduced, write
from trainer.reproduction.protocol import Protocol, choose_data, plan, select
from trainer.training.run_folder import Run

CPU = choose_device("cpu")
Shards = Callable[[str, str], list[Shard]]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    root = tmp_path_factory.mktemp("digits")
    return lambda _, name: [Shard.open(path) for path in shard_paths(name, (), root)]


def rgbd_shard(path: Path, split: int, dataset: str = "rgbd", epochs: int = 200) -> Shard:
    rng = np.random.default_rng(split)

    def part(name: str, rows: int, labelled: bool) -> PartData:
        features = {m: rng.random((rows, 5), dtype=np.float32) for m in "xw"}
        marks = np.arange(rows) < 6 if labelled else None
        return PartData(features, np.arange(rows) % 3, [f"{name}-{k}" for k in range(rows)], marks)

    return write_shard(
        path,
        dataset=dataset,
        split=split,
        classes=["cup", "bowl", "lamp"],
        modalities=[Modality("x", 5, "nonnegative"), Modality("w", 5, "nonnegative")],
        train=part("train", 30, True),
        test=part("test", 9, False),
        provenance={
            "weights": "imagenet",
            "images": {"dataset": dataset, "settings": {"size": 148, "depth_encoding": "jet"}},
            "recipe": {"settings": {"epochs": epochs, "labelled": 0.05}},
        },
        preset="sample" if dataset == "rgbd-sample" else "rgbd",
    )


@pytest.mark.parametrize("name", paper.load().tables)
def test_every_printed_number_has_one_cell_and_every_cell_a_printed_number(name: str) -> None:
    table = paper.load().tables[name]
    printed = {
        (block, row, column)
        for block, rows in table.blocks.items()
        for row, numbers in rows.items()
        for column in table.columns[: len(numbers.mean)]
    }
    planned = [(grid.title, n.row, n.column) for grid in EXPERIMENTS[name].grids for n in grid.numbers]
    assert len(set(planned)) == len(planned)
    assert set(planned) == printed
    assert all(grid.columns == table.columns for grid in EXPERIMENTS[name].grids)


def test_the_paper_s_numbers_are_read_where_they_stand() -> None:
    tables = paper.load().tables
    assert tables["table4"].printed("hmMNIST", "SS-HMVAE-kl, beta 0.1", "w") == Printed(mean=91.39)
    assert tables["table5"].printed("Washington RGB-D", "co-training", "x+w") == Printed(
        mean=89.2, std=1.3, quoted=True
    )
    assert tables["table5"].printed("Washington RGB-D", "M2", "x+w") is None
    assert sum(len(row.mean) for t in tables.values() for rows in t.blocks.values() for row in rows.values()) == 111


def test_the_setting_that_the_paper_prints_twice_is_one_and_says_so() -> None:
    by_place = {
        (name, n.row, n.column): n for name in ("table1", "table3")
        for grid in EXPERIMENTS[name].grids if "pi/4" in grid.title for n in grid.numbers
    }  # fmt: skip
    first, second = by_place["table1", "SS-HMVAE", "100"], by_place["table3", "SS-HMVAE", "128"]
    assert first.spec == second.spec
    assert "93.71" in first.note
    assert first.note == second.note
    assert paper.load().table1.printed("nmMNIST (pi/4, 0.5)", "SS-HMVAE", "100") == Printed(mean=90.80)


def test_another_dimension_of_a_changes_the_two_distributions_of_a_alone() -> None:
    changed = networks_with_a_of(2)
    assert changed == {
        "q(a|X)": "(X-D512BR-D512BR)-D512BR, D2",
        "p(a|z,y)": "(z, y)-D512BR-D512BR, D2",
    }
    assert networks_with_a_of(128).items() <= card("sshmvae").networks["mnist"].items()


def test_experiments_share_runs(digits: Shards, tmp_path: Path) -> None:
    protocol = Protocol(seeds=(0, 1), data={"mnist": "digits"})
    planned = plan(select(["all"], "mnist"), digits, protocol, tmp_path)
    folders = [run.folder for group in planned.work.values() for run in group]
    assert len(folders) > len(set(folders)) == len(planned.all())  # alpha 1 of figure 4 is table 1's SS-MVAE
    assert len(planned.of(EXPERIMENTS["table4"])) == 2 * 2 * 5  # the iterative row is SS-HMVAE's
    assert planned.of(EXPERIMENTS["figure5"]) == [
        run for run in planned.of(EXPERIMENTS["table4"]) if run.job.settings.beta == 1
    ]
    assert Spec("sshmvae", NM, 100) in EXPERIMENTS["table3"].specs()


def test_stacks_hold_what_can_be_stacked_low_seeds_and_cheap_ones_first(digits: Shards, tmp_path: Path) -> None:
    planned = plan(select(["table4"]), digits, Protocol(seeds=(3, 5), data={"mnist": "digits"}), tmp_path)
    stacked = make_stacks(planned.all(), 16)
    kinds = [{(s.model, s.data) for s in part.settings} for part in stacked]
    assert sorted(map(len, (part.settings for part in stacked))) == [2, 2, 2, 2, 6, 6]
    assert all(len(kind) == 1 for kind in kinds)  # left and right halves do not stack with whole digits
    assert {s.beta for s in next(p for p in stacked if p.settings[0].model == "sshmvae-kl").settings} == {0.1, 1, 10}
    single = make_stacks(planned.all(), 1)
    assert [part.settings[0].seed for part in single] == [3] * 10 + [5] * 10
    costs = [part.cost for part in single[:10]]
    assert costs == sorted(costs)
    begun = planned.all()[-1].folder
    begun.mkdir(parents=True)
    (begun / "checkpoint.safetensors").touch()
    assert begun.resolve() in make_stacks(planned.all(), 16)[0].folders
    (begun / "result.json").touch()
    assert begun.resolve() not in {folder for part in make_stacks(planned.all(), 16) for folder in part.folders}


def test_even_stacks(digits: Shards, tmp_path: Path) -> None:
    planned = plan(select(["figure4"]), digits, Protocol(data={"mnist": "digits"}), tmp_path)
    assert [len(part.settings) for part in make_stacks(planned.all(), 16)] == [13, 12]


def test_what_is_reduced_is_said(digits: Shards, tmp_path: Path) -> None:
    small_digits = "the 1,797 small digits of scikit-learn in the place of MNIST"
    protocol = Protocol((0,), epochs=1, values={"precision": "fp32"}, data={"mnist": "digits"})
    planned = plan(select(["table2"]), digits, protocol, tmp_path)
    messages = reduced(planned, EXPERIMENTS["table2"])
    preset = "the settings of the preset 'digits', not the paper's"
    precision = "precision set to fp32, not the preset's"
    assert messages == (small_digits, "1 epoch instead of 500", "1 seed instead of 5", preset, precision)
    assert protocol.name() == "digits-1-epochs-precision-fp32-seeds-0"
    assert Protocol().name() == "paper"
    ours = plan(select(["table2"]), digits, Protocol(preset="recommended", data={"mnist": "digits"}), tmp_path)
    assert "the settings of the preset 'recommended', not the paper's" in reduced(ours, EXPERIMENTS["table2"])


def rgbd_plan(folder: Path, splits: int, **changes: Any) -> Any:
    shards = [rgbd_shard(folder / f"{split}.h5", split, **changes) for split in range(splits)]
    return plan(select(["table5", "figure6"]), lambda *_: shards, Protocol(splits=tuple(range(splits))), folder)


def test_the_sample_s_numbers_are_called_so_and_not_compared(tmp_path: Path) -> None:
    planned = rgbd_plan(tmp_path, 2, dataset="rgbd-sample", epochs=0)
    assert reduced(planned, EXPERIMENTS["table5"]) == (
        "a small rendered sample in the place of Washington RGB-D: the numbers are the sample's",
        "VGG16 fine-tuned for 0 epochs instead of 200",
        "40 epochs instead of 100",
        "5 rounds of co-training instead of 10",
        "2 splits instead of 10",
        "the settings of the preset 'sample', not the paper's",
    )
    outcome = measure(planned, EXPERIMENTS["table5"], CPU)
    assert not outcome.comparable
    assert "the numbers are the sample's" in markdown(outcome)
    assert "not for comparison" in markdown(outcome)


def test_intervals_over_splits_are_called_approximate(tmp_path: Path) -> None:
    planned = rgbd_plan(tmp_path, 2, dataset="rgbd-sample", epochs=0)
    assert not any("approximate" in note for note in measure(planned, EXPERIMENTS["table5"], CPU).notes)
    spec = next(spec for spec in EXPERIMENTS["table5"].specs() if spec.model == "m2")
    for work, share in zip(planned.work[spec], (0.5, 0.6), strict=True):
        run = Run.prepare(work.folder, work.job.settings)
        run.begin([])
        run.write_metrics([{"epoch": 1, "J": -1.0}])
        run.write_provenance({})
        run.finish(Evaluation((Score("x", "none", share, 0.5, 0.1, 10),), None))
    outcome = measure(planned, EXPERIMENTS["table5"], CPU)
    assert outcome.notes[-1] == "Runs are splits: splits share training data, so the interval is approximate."
    assert "55.00 ± 63.53 (2)" in markdown(outcome)  # t(0.975, 1) * 5
    assert "The paper's own ± is the standard deviation over its trials." in markdown(outcome)


def test_the_paper_s_own_protocol_is_not_reduced_and_what_is_missing_is_shown(tmp_path: Path) -> None:
    planned = rgbd_plan(tmp_path, 10)
    outcome = measure(planned, EXPERIMENTS["table5"], CPU)
    assert outcome.reduced == ()
    assert outcome.comparable
    assert f"0 of {len(planned.of(EXPERIMENTS['table5']))} runs are done" in outcome.notes[0]
    (block,) = outcome.blocks
    m2 = next(row for row in block.rows if row.name == "M2")
    assert m2.cells[0].note == "no run of it is done"
    assert m2.cells[0].printed == Printed(mean=85.6, std=1.6)
    assert m2.cells[2] == Cell()
    assert "| M2 | 85.60 ± 1.6 / missing / - †1 |" in markdown(outcome)
    seeds = {run.job.settings.seed for run in planned.all()}
    assert seeds == {0}  # one run a split, as the paper has it
    few = rgbd_plan(tmp_path / "few", 2)
    splits = measure(few, EXPERIMENTS["figure6"], CPU).blocks[0].rows[0].cells
    assert [cell.note for cell in splits] == ["no run of it is done"] * 2 + ["this split was not asked for"] * 8


def test_differences_are_shown_and_low_ones_marked(digits: Shards, tmp_path: Path) -> None:
    outcome = measure(plan(select(["table2"]), digits, Protocol(data={"mnist": "digits"}), tmp_path), EXPERIMENTS["table2"], CPU)  # fmt: skip  # noqa: E501
    (block,) = outcome.blocks
    measured = Measured(mean=88.0, std=0.25, values=(87.75, 88.25), runs=("a", "b"))
    row = block.rows[0].model_copy(
        update={"cells": (block.rows[0].cells[0].model_copy(update={"measured": measured}),) * 3}
    )
    changed = outcome.model_copy(
        update={"comparable": True, "blocks": (block.model_copy(update={"rows": (row,)}),), "reduced": ()}
    )
    shown = text(changed.blocks[0], True)[0][0][1][0]
    assert shown is not None
    assert (shown.paper, shown.ours, shown.difference, shown.low) == ("89.03", "88.00 ± 3.18 (2)", "-1.03", True)
    assert "89.03 / 88.00 ± 3.18 (2) / **-1.03**" in markdown(changed)
    assert "docs/design/deviations.md" in markdown(changed)


def test_a_reduced_outcome_takes_no_full_one_s_place(digits: Shards, tmp_path: Path) -> None:
    planned = plan(select(["table2"]), digits, Protocol(data={"mnist": "digits"}), tmp_path)
    outcome = measure(planned, EXPERIMENTS["table2"], CPU)
    path, _ = write(outcome, tmp_path)
    assert read_result(path) == outcome
    check_folder(planned, tmp_path)
    write(outcome.model_copy(update={"reduced": ()}), tmp_path)
    with pytest.raises(UsageError, match="would be a reduced one"):
        check_folder(planned, tmp_path)


def test_experiments_and_data_are_chosen_by_name() -> None:
    assert [experiment.name for experiment in select(["all"], "rgbd")] == ["table5", "table6", "figure6"]
    assert [experiment.name for experiment in select(["figure4", "table1"])] == ["table1", "figure4"]
    with pytest.raises(UsageError, match="did you mean table4"):
        select(["tabel4"])
    with pytest.raises(UsageError, match="none of table5 is on mnist"):
        select(["table5"], "mnist")
    with pytest.raises(UsageError, match="--data-only fashion"):
        select(["all"], "fashion")
    everything = select(["all"])
    assert choose_data(["digits", "rgbd-sample"], everything) == {"mnist": "digits", "rgbd": "rgbd-sample"}
    with pytest.raises(UsageError, match="replace the same data"):
        choose_data(["rgbd", "rgbd-sample"], everything)
    with pytest.raises(UsageError, match="none of table1 would use it"):
        choose_data(["rgbd-sample"], select(["table1"]))
    with pytest.raises(UsageError, match="not on validation parts"):
        choose_data(["rgbd-validation"], everything)


def test_what_an_experiment_is_about_cannot_be_set(digits: Shards, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="labels: the experiments decide that themselves"):
        plan(select(["table2"]), digits, Protocol(values={"labels": 50}), tmp_path)
