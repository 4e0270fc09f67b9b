"""`mmssl label`, as a person uses it: by the keyboard in a real browser, stopped, gone on with, trained on."""

import csv
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

from starlette.types import ASGIApp

from commands.label import make_labelling
from pipeline.shards.shard import Shard
from pipeline.sources.questions import Question
from tests.support.browser import DESKTOP, PHONE, chromium, page_at
from tests.support.commands import Command, start
from tests.support.served import serving
from tests.support.training import NETWORKS, X, clusters, make_shard
from trainer.serving.labelling import NextStep


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def labels_in(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def asked(path: Path, shard: Shard, rows: int, new_classes: bool = False) -> ASGIApp:
    questions = [Question(row, str(shard.train.ids[row]), predicted=shard.classes[0]) for row in range(rows)]
    step = NextStep("train on the answers", f"mmssl train ... --labels-from {path}")
    return make_labelling(path, questions, shard, lambda _: step, new_classes).application()


def press(page: Any, key: str, *, until: str) -> None:
    """Presses a key, and waits until the title of the question begins so."""
    page.keyboard.press(key)
    page.wait_for_function(
        """(text) => [...document.querySelectorAll("h2")].some(
          (title) => !title.closest("[hidden]") && title.innerText.startsWith(text))""",
        arg=until,
    )


def test_ten_rows_by_keyboard(browser: Any, tmp_path: Path) -> None:
    """Each label is in the file when the next question is shown; undo, `?`, skipping and the end."""
    path, shard = tmp_path / "ask.csv", make_shard(tmp_path / "shard.h5")
    with serving(asked(path, shard, 10)) as address, page_at(browser, address) as page:
        expected = [""] * 10
        for k, (key, label) in enumerate([("1", "cup"), ("2", "bowl"), ("3", "spoon"), ("?", "?"), ("2", "bowl")]):
            press(page, key, until=f"{k + 2} of 10")
            expected[k] = label
            assert labels_in(path) == expected
        press(page, "u", until="5 of 10")
        assert labels_in(path) == [*expected[:4], *[""] * 6]
        press(page, "3", until="6 of 10")
        press(page, "s", until="7 of 10")
        press(page, "9", until="7 of 10")  # no class has this key
        for k in range(6, 10):
            press(page, "1", until=f"{k + 2} of 10" if k < 9 else "All rows")
        assert labels_in(path) == ["cup", "bowl", "spoon", "?", "spoon", "", "cup", "cup", "cup", "cup"]
        assert "8 labels, 1 never to be asked again, 1 left for later" in page.inner_text("#summary")
        assert f"--labels-from {path}" in page.inner_text("#end pre")
        press(page, "ArrowLeft", until="10 of 10")
        assert page.inner_text("#said") == "You said: cup"
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, True), (PHONE, False)], ids=["desktop, dark", "phone, light"])
def test_roles_labels_and_contrast(browser: Any, tmp_path: Path, size: dict[str, int], dark: bool) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="the extra `browser` (axe-playwright-python) is not installed"
    ).Axe()
    path, shard = tmp_path / "ask.csv", make_shard(tmp_path / "shard.h5")
    with serving(asked(path, shard, 2, new_classes=True)) as address, page_at(browser, address, size, dark) as page:
        page.click("summary")
        for key, title in (("1", "2 of 2"), ("?", "All rows")):
            found = axe.run(page).response
            assert not found["violations"], [(one["id"], one["nodes"]) for one in found["violations"]]
            assert "color-contrast" in {one["id"] for one in found["passes"]}
            press(page, key, until=title)
        assert not axe.run(page).response["violations"]
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_undo_goes_on_after_the_page_was_loaded_again(browser: Any, tmp_path: Path) -> None:
    path, shard = tmp_path / "ask.csv", make_shard(tmp_path / "shard.h5")
    with serving(asked(path, shard, 4)) as address, page_at(browser, address) as page:
        page.keyboard.type("12")
        press(page, "3", until="4 of 4")
        page.reload()
        press(page, "u", until="3 of 4")
        press(page, "u", until="2 of 4")
        assert labels_in(path) == ["cup", "", "", ""]
        press(page, "3", until="3 of 4")
        press(page, "u", until="2 of 4")
        assert labels_in(path) == ["cup", "", "", ""]


def test_undo_knows_nothing_of_other_questions_in_a_file_of_that_name(browser: Any, tmp_path: Path) -> None:
    path, shard = tmp_path / "ask.csv", make_shard(tmp_path / "shard.h5")
    server, other = asked(path, shard, 4), asked(path, shard, 3)

    async def one_after_the_other(scope: Any, receive: Any, send: Any) -> None:
        await (server if not turned else other)(scope, receive, send)

    turned: list[bool] = []
    with serving(one_after_the_other) as address, page_at(browser, address) as page:
        press(page, "1", until="2 of 4")
        turned.append(True)
        page.reload()
        assert page.locator("#undo").is_disabled()


def test_keys_may_come_faster_than_answers(browser: Any, tmp_path: Path) -> None:
    path, shard = tmp_path / "ask.csv", make_shard(tmp_path / "shard.h5")
    with serving(asked(path, shard, 10)) as address, page_at(browser, address) as page:
        page.keyboard.type("123?2s31u2")
        press(page, "3", until="10 of 10")
        assert labels_in(path) == ["cup", "bowl", "spoon", "?", "bowl", "", "spoon", "bowl", "spoon", ""]


def test_after_a_failed_answer_nothing_that_was_pressed_goes_to_another_row(browser: Any, tmp_path: Path) -> None:
    path, shard = tmp_path / "ask.csv", make_shard(tmp_path / "shard.h5")
    with serving(asked(path, shard, 4)) as address, page_at(browser, address) as page:
        page.route("**/labels/1", lambda route: route.abort())
        page.keyboard.type("1232")
        page.wait_for_selector("#problem:not([hidden])")
        assert "does not answer" in page.inner_text("#problem")
        page.unroute("**/labels/1")
        press(page, "3", until="3 of 4")
        assert labels_in(path) == ["cup", "spoon", "", ""]
        page.console_lines.clear()  # the browser's own line about the request that failed


def test_a_new_class_changes_no_key(browser: Any, tmp_path: Path) -> None:
    names = [str(digit) for digit in range(9)]
    train = clusters("train", [row % 3 for row in range(30)], [X])
    shard = make_shard(tmp_path / "shard.h5", [X], classes=names, train=train)
    path = tmp_path / "ask.csv"
    with serving(asked(path, shard, 8, new_classes=True)) as address, page_at(browser, address) as page:
        press(page, "1", until="2 of 8")
        for k, name in enumerate(("teapot", "kettle")):
            page.fill("#name", name)
            press(page, "Enter", until=f"{k + 3} of 8")
        page.locator("#question").click()
        press(page, "1", until="5 of 8")
        press(page, "9", until="6 of 8")
        page.get_by_role("button", name="3", exact=True).focus()
        press(page, "Enter", until="7 of 8")
        press(page, "Enter", until="8 of 8")  # the focus stays on the class
        assert labels_in(path) == ["1", "teapot", "kettle", "1", "teapot", "3", "3", ""]


def test_many_classes_are_chosen_by_their_first_letters(browser: Any, tmp_path: Path) -> None:
    names = ["apricot_jam", "apricot", "bell_pepper", *(f"class {k}" for k in range(10))]
    labels = [k % len(names) for k in range(26)]
    shard = make_shard(tmp_path / "shard.h5", [X], classes=names, train=clusters("train", [k % 3 for k in labels], [X]))
    path = tmp_path / "ask.csv"
    with serving(asked(path, shard, 4, new_classes=True)) as address, page_at(browser, address) as page:
        page.keyboard.type("apricot")  # itself, not the first that begins so
        press(page, "Enter", until="2 of 4")
        assert labels_in(path)[:2] == ["apricot", ""]
        page.keyboard.type("bell\nclass 7")  # the second before the first is answered
        press(page, "Enter", until="4 of 4")
        press(page, "Escape", until="3 of 4")
        press(page, "Escape", until="2 of 4")
        page.keyboard.type("class 7")
        press(page, "Enter", until="3 of 4")
        press(page, "?", until="4 of 4")
        page.fill("#name", "teapot")
        press(page, "Enter", until="All rows")
        assert labels_in(path) == ["apricot", "class 7", "?", "teapot"]


def test_the_command_asks_stops_and_goes_on(mmssl: Command, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx", reason="the tests of a server need httpx")
    shard = make_shard(tmp_path / "clusters.h5")
    networks = "\n".join(f'"{name}" = "{text}"' for name, text in NETWORKS["sshmvae-kl"].items())
    (tmp_path / "kl.toml").write_text(f"epochs = 2\nbatch_size = 32\n[networks]\n{networks}\n")
    train = ("train", "sshmvae-kl", "--data", shard.path, "--config", "kl.toml", "--labels", 6, "--no-reference")
    run = json.loads(mmssl(*train, "--json").out)[0]["folder"]
    for answers, said in (({0: "cup", 1: "?"}, "4 rows to label"), ({2: "bowl"}, "going on with ask.csv: 2 of 4 rows")):
        process = start("label", run, "-n", 4, "--port", 0, "--out", "ask.csv", cwd=tmp_path, MMSSL_ROOT="workspace")
        assert process.stdout is not None
        lines = list[str]()
        while "at http" not in (line := process.stdout.readline()):
            assert line, lines
            lines.append(line)
        lines.append(line)
        assert said in "".join(lines)
        with (tmp_path / "ask.csv").open(encoding="utf-8", newline="") as file:
            rows = [int(row["row"]) for row in csv.DictReader(file)]
        for k, label in answers.items():
            reply = httpx.post(f"{line.split()[-1]}/labels/{rows[k]}", json={"label": label})
            assert reply.status_code == 200, reply.text
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    assert labels_in(tmp_path / "ask.csv") == ["cup", "?", "bowl", ""]
    assert "2 labels, 1 never to be asked again, in ask.csv" in out
    command = out.splitlines()[-1]
    assert command == f"mmssl {' '.join(map(str, train))} --labels-from ask.csv"
    done = mmssl(*command.split()[1:], "--json")
    assert done.code == 0, done.err
    assert {label for _, label in done.json[0]["settings"]["answers"]} == {"cup", "?", "bowl"}


def test_what_cannot_be_gone_on_with_is_said(mmssl: Command, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "clusters.h5")
    networks = "\n".join(f'"{name}" = "{text}"' for name, text in NETWORKS["sshmvae-kl"].items())
    (tmp_path / "kl.toml").write_text(f"epochs = 1\nbatch_size = 32\n[networks]\n{networks}\n")
    train = ("train", "sshmvae-kl", "--data", shard.path, "--config", "kl.toml", "--labels", 6, "--no-reference")
    run = json.loads(mmssl(*train, "--json").out)[0]["folder"]
    (tmp_path / "ask.csv").write_text("row,id,label\n0,train-0,cups\n")
    done = mmssl("label", run, "--port", 0)
    assert (done.code, "there is no class 'cups'; did you mean cup?" in done.err) == (1, True), done.err
    done = mmssl("label", run, "--host", "0.0.0.0")
    assert (done.code, "requests must bring a token" in done.err) == (2, True), done.err
