"""Scenarios: the decorator, groups of machines and their verbs, processes, and the runner.

`fanout.scenario` is the decorator for those who write scenarios, and this package for the import system.  Both
are one object: the module can be called.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Decorator(types.ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from fanout.scenario.decorator import scenario

        return scenario(*args, **options)


sys.modules[__name__].__class__ = _Decorator
