"""How machines are shared among calls; what comes of the calls is in tests/cloud."""

from __future__ import annotations

from fanout.fleets.aws.launch import Batch, batches


def test_relays_come_first_and_no_batch_is_too_large() -> None:
    assert batches(205, 3, ("t3.small",), ("c7i.large",)) == [
        Batch(0, 3, ("c7i.large",), relay=True),
        Batch(1, 100, ("t3.small",), relay=False),
        Batch(2, 100, ("t3.small",), relay=False),
        Batch(3, 2, ("t3.small",), relay=False),
    ]
    assert batches(2, 2, ("t3.small",), ("c7i.large",)) == [Batch(0, 2, ("c7i.large",), relay=True)]
    assert sum(each.machines for each in batches(1234, 0, ("t3.small",), ())) == 1234
