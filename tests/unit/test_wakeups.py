"""Signals inside the order service."""

import uuid

from order_service.wakeups import Wakeups

ONE, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)


def test_whoever_watches_an_order_is_told_of_its_change() -> None:
    wakeups = Wakeups()
    with wakeups.watching(ONE) as first, wakeups.watching(ONE) as second:
        wakeups.announce([ONE])
        assert first.is_set()
        assert second.is_set()


def test_changes_of_other_orders_wake_nobody() -> None:
    wakeups = Wakeups()
    with wakeups.watching(ONE) as changed:
        wakeups.announce([OTHER])
        assert not changed.is_set()


def test_one_who_leaves_does_not_take_the_others_along() -> None:
    wakeups = Wakeups()
    with wakeups.watching(ONE) as staying:
        with wakeups.watching(ONE) as leaving:
            pass
        wakeups.announce([ONE])
        assert staying.is_set()
        assert not leaving.is_set()


def test_orders_that_nobody_watches_any_more_are_forgotten() -> None:
    wakeups = Wakeups()
    with wakeups.watching(ONE), wakeups.watching(ONE):
        pass
    assert not wakeups._watchers


def test_every_announcement_wakes_the_relay() -> None:
    wakeups = Wakeups()
    assert not wakeups.outbox.is_set()
    wakeups.announce(())
    assert wakeups.outbox.is_set()
