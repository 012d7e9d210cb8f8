"""Delivery: a frame is kept until it is acknowledged, and settled below only when it is settled above."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core.delivery import Receiver, Sender


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 50), max_size=30), acks=st.lists(st.integers(0, 40), max_size=10))
def test_what_is_kept_is_what_comes_after_the_highest_acknowledgement(sizes: list[int], acks: list[int]) -> None:
    sender = Sender(None)
    bodies = [bytes([i]) * size for i, size in enumerate(sizes)]
    assert [sender.keep(16, body, []) for body in bodies] == list(range(1, len(bodies) + 1))
    for ack in acks:
        sender.acknowledged(ack, 0.0)
    rest = bodies[max(acks, default=0) :]
    assert [body for _, body, _ in sender.unacked()] == rest
    assert sender.unacked_bytes == sum(map(len, rest))


@settings(deadline=None)
@given(window=st.integers(1, 100), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_a_window_is_exceeded_by_less_than_one_frame(window: int, sizes: list[int]) -> None:
    sender = Sender(window)
    for size in sizes:
        if sender.may_send():
            sender.keep(17, bytes(size), [])
        assert sender.unacked_bytes < window + max(sizes)
    sender.acknowledged(sender.last, 0.0)
    assert sender.may_send()


@settings(deadline=None)
@given(order=st.permutations(range(1, 12)))
def test_settled_in_any_order_it_is_acknowledged_up_to_the_first_gap(order: list[int]) -> None:
    receiver, done = Receiver(), set()
    for number in order:
        receiver.settle(number)
        done.add(number)
        assert receiver.acked == next(i for i in range(12) if i + 1 not in done)
    assert not receiver._settled


@settings(deadline=None)
@given(data=st.data(), children=st.integers(1, 3), hops=st.integers(1, 3))
def test_nothing_is_settled_below_before_it_is_acknowledged_above(
    data: st.DataObject, children: int, hops: int
) -> None:
    """A chain of relays, each joining frames at will; acknowledgements come from the top only."""
    bottom = [Receiver() for _ in range(children)]
    came = [0] * children
    frames: list[list[tuple[Receiver, int]]] = []
    for _ in range(data.draw(st.integers(1, 15))):
        child = data.draw(st.integers(0, children - 1))
        came[child] += 1
        frames.append([(bottom[child], came[child])])
    senders = []
    for _ in range(hops):
        sender, receiver, above = Sender(None), Receiver(), []
        while frames:
            take = data.draw(st.integers(1, len(frames)))
            origins = [origin for frame in frames[:take] for origin in frame]
            del frames[:take]
            above.append([(receiver, sender.keep(17, b"", origins))])
        senders.append((sender, receiver))
        frames = above
    assert all(receiver.acked == 0 for receiver in bottom)
    for number in range(1, len(frames) + 1):
        senders[-1][1].settle(number)
        for (_, told), (sender, _) in zip(reversed(senders), reversed(senders), strict=True):
            sender.acknowledged(told.acked, 0.0)
    assert [receiver.acked for receiver in bottom] == came
    assert all(not sender.unacked() for sender, _ in senders)
