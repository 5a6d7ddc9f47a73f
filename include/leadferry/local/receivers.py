"""The buyers' side of the try-out: which receivers run, and the Airflow connections that lead to them."""

from __future__ import annotations

import sys
from typing import Any

from leadferry.local.processes import Processes
from leadferry.local.workspace import Workspace

NAMES: tuple[str, ...] = ()


def start_all(processes: Processes, *, workspace: Workspace) -> None:
    """Start every receiver with its inbox."""


def connections(processes: Processes, *, workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return the Airflow connections to the receivers, by connection id, when all of them listen."""
    return {}
