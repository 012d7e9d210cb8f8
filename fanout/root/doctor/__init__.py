"""What would fail, found before it does: on this machine, and on each machine of a fleet.

Every finding has a remedy unless it is fine.  Nothing is changed anywhere; a fleet that is made for the visit is
released after it.
"""

from fanout.root.doctor.finding import Finding, Level
from fanout.root.doctor.fleet import visit
from fanout.root.doctor.local import here

__all__ = ["Finding", "Level", "here", "visit"]
