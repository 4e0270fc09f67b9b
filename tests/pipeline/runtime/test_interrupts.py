"""Signals become requests, once; everything about them is put back afterwards."""

import signal
import threading
from collections.abc import Iterator

import pytest

from pipeline.runtime.interrupts import STOP_SIGNALS, heeded, stop_requests

BOTH = (signal.SIGTERM, signal.SIGINT)


class Seen(Exception):
    """What the handlers of before raise."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Handlers that tell on themselves, for as long as a test runs."""

    def tell(number: int, _: object) -> None:
        raise Seen(signal.Signals(number).name)

    before = {which: signal.signal(which, tell) for which in STOP_SIGNALS}
    yield
    for which, handler in before.items():
        signal.signal(which, handler)


@pytest.mark.parametrize("which", STOP_SIGNALS)
def test_the_first_signal_is_a_request(which: signal.Signals) -> None:
    with stop_requests() as stop:
        assert (stop.requested, stop.name) == (False, None)
        signal.raise_signal(which)
        assert (stop.requested, stop.name) == (True, which.name)


@pytest.mark.parametrize("second", BOTH)
@pytest.mark.parametrize("first", BOTH)
def test_the_second_signal_acts_as_it_did_before(first: signal.Signals, second: signal.Signals) -> None:
    with stop_requests() as stop:
        signal.raise_signal(first)
        with pytest.raises(Seen, match=second.name):
            signal.raise_signal(second)
        assert stop.name == first.name


@pytest.mark.parametrize("which", [signal.SIGHUP, signal.SIGUSR1])
def test_what_was_ignored_from_the_start_stays_ignored(which: signal.Signals) -> None:
    """As under `nohup`."""
    signal.signal(which, signal.SIG_IGN)
    assert which not in heeded()
    with stop_requests() as stop:
        signal.raise_signal(which)
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested


@pytest.mark.parametrize("which", BOTH)
def test_sigterm_and_sigint_always_count(which: signal.Signals) -> None:
    """A shell starts its background jobs with SIGINT ignored, and `kill -INT` should stop them."""
    signal.signal(which, signal.SIG_IGN)
    assert which in heeded()


@pytest.mark.parametrize("which", BOTH)
def test_handlers_are_put_back(which: signal.Signals) -> None:
    before = signal.getsignal(which)
    with stop_requests():
        assert signal.getsignal(which) is not before
    assert signal.getsignal(which) is before
    with pytest.raises(Seen):
        signal.raise_signal(which)
    with pytest.raises(ZeroDivisionError), stop_requests():
        raise ZeroDivisionError
    assert signal.getsignal(which) is before


def test_requests_do_not_outlive_their_block() -> None:
    with stop_requests() as first:
        signal.raise_signal(signal.SIGTERM)
    with stop_requests() as second:
        assert first.requested
        assert not second.requested


def test_the_inner_of_two_blocks_gets_the_signal_and_the_outer_one_the_next() -> None:
    with stop_requests() as outer:
        with stop_requests() as inner:
            signal.raise_signal(signal.SIGTERM)
            assert (inner.requested, outer.requested) == (True, False)
        signal.raise_signal(signal.SIGINT)
        assert outer.name == "SIGINT"


def test_in_another_thread_nothing_is_requested_and_nothing_changed() -> None:
    before = [signal.getsignal(which) for which in BOTH]
    states = []

    def work() -> None:
        with stop_requests() as stop:
            states.append((stop.requested, [signal.getsignal(which) for which in BOTH]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert states == [(False, before)]
    assert [signal.getsignal(which) for which in BOTH] == before


def test_a_request_that_an_inner_block_did_not_act_on_is_the_outer_ones() -> None:
    with stop_requests() as outer:
        with stop_requests() as inner:
            signal.raise_signal(signal.SIGTERM)
            assert inner.name == "SIGTERM"
        assert outer.name == "SIGTERM"
    with stop_requests() as later:
        assert not later.requested
