"""What an operator can offer, on the command line and in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.broker.offers import Offer, from_file, from_text
from fanout.errors import UsageError


def test_a_file_has_what_the_fleet_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "offers.toml"
    path.write_text(
        '[offers.small]\nfleet = "lab:cpu=0.5"\nprice = 0.12\ntypes = ["s1"]\nregions = ["here"]\n'
        '[offers.plain]\nfleet = "lab"\n'
    )
    assert from_file(path) == [Offer("small", "lab:cpu=0.5", ("s1",), ("here",), 0.12), Offer("plain", "lab")]
    assert from_text("small=lab:cpu=0.5") == Offer("small", "lab:cpu=0.5")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing"),
        ("[offers.x]\n", "which fleet"),
        ('[offers.x]\nfleet = "lab"\nprice = "much"\n', "price is"),
        ('[offers.x]\nfleet = "lab"\nprice = -1\n', "price is"),
        ('[offers.x]\nfleet = "lab"\ntypes = "a"\n', "types is a list"),
        ('[offers.x]\nfleet = "lab"\nregion = "a"\n', "unknown: region"),
        ('[offers.x]\nfleet = "broker:https://x"\n', "does not lease"),
        ("offers = 1\n", "nothing else"),
        ("[", "not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "offers.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as raised:
        from_file(path)
    assert "offers.toml" in str(raised.value)
