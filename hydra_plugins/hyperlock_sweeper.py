"""How Hydra finds `hydra/sweeper=study`; Optuna is imported only when a sweep begins."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """`hyperlock.sweep.sweeper`, with the settings of Hydra's Optuna sweeper."""

    def __init__(self, **settings: Any) -> None:
        from hyperlock.sweep.sweeper import StudySweeperImpl

        self._sweeper = StudySweeperImpl(**settings)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take in what Hydra composed."""
        self._sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep."""
        from hyperlock.sweep.sweeper import run

        run(self._sweeper, arguments)
