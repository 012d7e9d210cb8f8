"""N isolated hosts on one Linux machine, for development, tests and benchmarks."""

from fanout.fleets.lab.fleet import LabFleet
from fanout.fleets.lab.ground import LabHost
from fanout.fleets.lab.lab import Lab

__all__ = ["Lab", "LabFleet", "LabHost"]
