"""Signals inside the order service."""

import uuid

from order_service.wakeups import Wakeups

ONE, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)


def test_a_watcher_of_an_order_is_notified_of_its_change() -> None:
    wakeups = Wakeups()
    with wakeups.watching(ONE) as first, wakeups.watching(ONE) as second:
        wakeups.notify([ONE])
        assert first.is_set()
        assert second.is_set()


def test_changes_of_other_orders_wake_no_watcher() -> None:
    wakeups = Wakeups()
    with wakeups.watching(ONE) as changed:
        wakeups.notify([OTHER])
        assert not changed.is_set()


def test_a_watcher_that_ends_leaves_the_others() -> None:
    wakeups = Wakeups()
    with wakeups.watching(ONE) as remaining:
        with wakeups.watching(ONE) as ended:
            pass
        wakeups.notify([ONE])
        assert remaining.is_set()
        assert not ended.is_set()


def test_orders_without_watchers_are_forgotten() -> None:
    wakeups = Wakeups()
    with wakeups.watching(ONE), wakeups.watching(ONE):
        pass
    assert not wakeups._watchers


def test_every_notification_wakes_the_relay() -> None:
    wakeups = Wakeups()
    assert not wakeups.outbox.is_set()
    wakeups.notify()
    assert wakeups.outbox.is_set()
