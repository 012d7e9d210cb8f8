"""Write a scenario as plain Python; run it on a thousand machines through a tree of SSH relays.

The public names, each imported when it is first used: `import fanout` costs next to nothing, because the agent
lives below this package too.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fanout.errors import FanoutError, FleetError, ScenarioFailure, Timeout, UsageError
    from fanout.root.outcomes import Outcome, Report, RunOutcome, RunResult
    from fanout.scenario.build import git
    from fanout.scenario.builder import BuildFailed
    from fanout.scenario.decorator import Scenario, scenario
    from fanout.scenario.failures import (
        CommandFailed,
        FetchFailed,
        InvariantBroken,
        MemberFailed,
        ProcessFailed,
        ShipFailed,
        SyncFailed,
    )
    from fanout.scenario.fetching import Fetched
    from fanout.scenario.fleet import Fleet
    from fanout.scenario.group import Group, Machine
    from fanout.scenario.matches import Matches
    from fanout.scenario.observer import Observer
    from fanout.scenario.processes import Process, Processes
    from fanout.scenario.results import Result, Results
    from fanout.scenario.runner import RunOptions, run
    from fanout.scenario.trigger import signal
    from fanout.version import __version__

__all__ = [
    "BuildFailed",
    "CommandFailed",
    "FanoutError",
    "FetchFailed",
    "Fetched",
    "Fleet",
    "FleetError",
    "Group",
    "InvariantBroken",
    "Machine",
    "Matches",
    "MemberFailed",
    "Observer",
    "Outcome",
    "Process",
    "ProcessFailed",
    "Processes",
    "Report",
    "Result",
    "Results",
    "RunOptions",
    "RunOutcome",
    "RunResult",
    "Scenario",
    "ScenarioFailure",
    "ShipFailed",
    "SyncFailed",
    "Timeout",
    "UsageError",
    "__version__",
    "git",
    "run",
    "scenario",
    "signal",
]

_MODULES = {
    "errors": ("FanoutError", "FleetError", "ScenarioFailure", "Timeout", "UsageError"),
    "scenario.observer": ("Observer",),
    "root.outcomes": ("Outcome", "Report", "RunOutcome", "RunResult"),
    "scenario.build": ("git",),
    "scenario.builder": ("BuildFailed",),
    "scenario.decorator": ("Scenario",),
    "scenario.failures": (
        "CommandFailed", "FetchFailed", "InvariantBroken", "MemberFailed", "ProcessFailed", "ShipFailed",
        "SyncFailed",
    ),
    "scenario.fetching": ("Fetched",),
    "scenario.fleet": ("Fleet",),
    "scenario.group": ("Group", "Machine"),
    "scenario.matches": ("Matches",),
    "scenario.processes": ("Process", "Processes"),
    "scenario.results": ("Result", "Results"),
    "scenario.runner": ("RunOptions", "run"),
    "scenario.trigger": ("signal",),
    "version": ("__version__",),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "scenario":  # the package of that name is what is public: it can be called, as the decorator
        return import_module("fanout.scenario")
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module("fanout." + module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'fanout' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
