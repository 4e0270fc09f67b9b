"""`mmssl reproduce`, as a user calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.commands import Command
from tests.support.paths import ROOT
from tests.support.small_networks import SSMVAE, as_assignment

TRY = ("reproduce", "table2", "--data", "digits", "--epochs", 1, "--set", as_assignment(SSMVAE))


def test_a_table_from_nothing_and_again_from_its_runs(mmssl: Command) -> None:
    planned = mmssl(*TRY, "--seeds", "0..1", "--dry-run")
    assert planned.code == 0
    assert "12 runs, 0 of them done; 12 to train, in 6 stacks" in planned.out
    assert not Path("workspace/runs").exists()

    first = mmssl(*TRY, "--seeds", 0, "--out", "out")
    assert first.code == 0, first.err
    assert "REDUCED: the 1,797 small digits of scikit-learn" in first.out
    assert "1 epoch instead of 500; 1 seed instead of 5" in first.out
    assert "M2 on [x;w]" in first.out
    assert "6 runs to train" in first.err
    assert "docs/design/deviations.md" in first.out

    both = mmssl(*TRY, "--seeds", "0..1", "--out", "out", "--stack", 2)
    assert both.code == 0, both.err
    assert "6 runs to train" in both.err  # those of seed 0 are there
    outcome = json.loads(Path("out/table2.json").read_text())
    cell = outcome["blocks"][0]["rows"][1]["cells"][2]
    assert cell["printed"]["mean"] == 86.36
    assert len(cell["measured"]["values"]) == 2
    results = [
        json.loads((Path("workspace/runs") / run / "result.json").read_text()) for run in cell["measured"]["runs"]
    ]
    accuracies = [next(s["accuracy"] for s in result["scores"] if s["given"] == "x+w") for result in results]
    assert cell["measured"]["values"] == [100 * accuracy for accuracy in accuracies]
    assert any("1 epoch instead of 500" in line for line in outcome["reduced"])
    assert "REDUCED" in Path("out/table2.md").read_text()

    # A process that was killed when all was done, but for its lease.
    left = f"Lease().add(Path('out/.table2.json.{'0' * 32}.lease')); os._exit(9)"
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os; from pathlib import Path; from pipeline.runtime.leases import Lease; {left}",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert list(Path("out").glob(".*.lease"))
    again = mmssl(*TRY, "--seeds", "0..1", "--out", "out", "--json")
    assert "nothing is left to train" in again.err
    assert not list(Path("out").glob(".*.lease"))
    assert again.json[0]["blocks"] == outcome["blocks"]


def test_a_reduced_outcome_lies_in_a_folder_that_says_so(mmssl: Command) -> None:
    done = mmssl("reproduce", "figure5", "--data", "digits", "--seeds", 0, "--epochs", 900, "--time-limit", 0.02)
    assert done.code == 75
    assert "stopped after 0.02 minutes" in done.sentence
    written = Path("workspace/results/digits-900-epochs-seeds-0/figure5.md").read_text()
    assert "INCOMPLETE: 0 of 6 runs are done" in written
    listed = mmssl("reproduce", "figure5", "--data", "digits", "--seeds", 0, "--epochs", 900, "--dry-run", "--json")
    assert [run["state"].split(",")[0] for run in listed.json] == ["begun", *["to do"] * 5]


def test_wrong_use_is_one_sentence(mmssl: Command) -> None:
    for arguments, code, sentence in (
        (("tabel4",), 2, "there is no experiment 'tabel4'; did you mean table4?"),
        (("table5",), 1, "workspace/shards/rgbd-split-0.h5"),
        (("table5", "--data", "digits"), 2, "--data digits: none of table5 would use it"),
        (("table1", "--seeds", "4..0"), 2, "--seeds 4..0: the range is empty"),
        (("table2", "--data", "digits", "--set", "labels=4"), 2, "--set labels: the experiments decide"),
        (("table2", "--data", "digits", "--set", "speed=4"), 2, "the settings: there is no setting 'speed'"),
        (("table2", "--data", "digits", "--preset", "worst"), 2, "Invalid value for '--preset': 'worst' is not one of"),
        (("table2", "--data", "digits", "--jobs", 2, "--scheduler", "tcp://localhost:1"), 2, "--jobs must be"),
    ):  # fmt: skip
        done = mmssl("reproduce", *arguments)
        assert done.code == code, done.err
        assert sentence in done.sentence
        assert "Traceback" not in done.err
        assert not Path("workspace/results").exists()
