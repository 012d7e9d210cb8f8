"""The constants of the cost model as `fanout bench` measured them, kept for each fleet in a small file of the user.

What cannot be read is as if it were not there: a plan is never a reason for a run to fail.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fanout.root.model import DEFAULT, Costs


def path() -> Path:
    """`$XDG_STATE_HOME/fanout/costs.json`, below `~/.local/state`."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state else Path("~/.local/state").expanduser()
    return base / "fanout" / "costs.json"


def measured(fleet: str) -> Costs | None:
    """Those of a fleet, by its text after `--fleet`; None when it was never measured."""
    values = _read().get(fleet)
    if not isinstance(values, dict):
        return None
    known = {field.name: type(getattr(DEFAULT, field.name)) for field in fields(Costs)}
    try:
        return Costs(**{name: known[name](value) for name, value in values.items() if name in known and value >= 0})
    except (TypeError, ValueError):
        return None


def of(fleet: str) -> Costs:
    """Those of a fleet, or the ones that are built in."""
    return measured(fleet) or DEFAULT


def keep(fleet: str, costs: Costs) -> Path:
    """Returns the file that they were written to.  OSError when they cannot be."""
    everything = _read()
    everything[fleet] = asdict(costs)
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(json.dumps(everything, indent=1) + "\n")
    new.replace(file)
    return file


def _read() -> dict[str, Any]:
    try:
        found = json.loads(path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
