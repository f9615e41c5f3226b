"""Replies as today's models write them, labelled by hand: nothing is read wrongly, and little that is clear is lost."""

from collections import Counter

import pytest
from labelled_replies import UNREADABLE, count, replies_of

LISTS = ("ratings.txt", "choices.txt", "texts.txt")
# Of the replies that a careful person can read.
MOST_LOST = 0.03


def shown(replies):
    return [f"{reply.where}: {reply.value!r}, read {reply.read()!r}" for reply in replies]


@pytest.mark.parametrize("names", [LISTS, ("held_out.txt",)], ids=["lists", "held out"])
def test_nothing_is_read_wrongly_and_little_is_lost(names):
    replies = [reply for name in names for reply in replies_of(name)]
    counted = count(replies)
    assert shown(counted.wrong) == []
    assert len(counted.lost) <= MOST_LOST * counted.clear, shown(counted.lost)


def test_there_are_many_of_every_kind():
    replies = [reply for name in LISTS for reply in replies_of(name)]
    of_kind = Counter(reply.parser for reply in replies)
    unreadable = Counter(reply.parser for reply in replies if reply.value is UNREADABLE)
    assert len(replies) >= 400 and len(replies_of("held_out.txt")) == 100
    assert of_kind["rating"] > 100 and of_kind["preference"] > 100
    assert all(unreadable[kind] * 5 > of_kind[kind] for kind in ("rating", "preference", "explain", "order"))
    texts = [reply.text for reply in replies]
    assert len(set(texts)) > 0.95 * len(texts)
