"""joblib on the grid: after `gridcore.joblib.register()`, `joblib.parallel_config("gridcore")`.

So scikit-learn's `n_jobs` and every other `Parallel` run there as well. Inside of its calls a
further `Parallel` takes threads first and then runs in order, as it does below joblib's processes.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import joblib
from joblib.parallel import AutoBatchingMixin, FallbackToBackend, SequentialBackend

from gridcore.sdk.executor import Executor
from gridcore.sdk.state import cluster_resources

NAME = "gridcore"

_batches = 0
"""Those that run in this process."""


class GridBackend(AutoBatchingMixin, joblib.parallel.ParallelBackendBase):  # type: ignore[misc]
    """`n_jobs` calls at a time, where -1 stands for all cores: of this machine, or of the grid's
    nodes. Further arguments of `parallel_config` are options of `@remote` functions."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._executor: Executor | None = None
        self._open: set[concurrent.futures.Future[Any]] = set()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or _batches:
            # Inside of a call, to wait for others would keep the core that they may need: joblib
            # waits in a loop of its own.
            return 1
        return n_jobs if n_jobs > 0 else max(int(cluster_resources()["CPU"]) + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._executor = Executor(n_jobs, **self.backend_kwargs)
        return n_jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None
    ) -> concurrent.futures.Future[Any]:
        assert self._executor is not None
        future = self._executor.submit(_run, func)
        self._open.add(future)
        if callback is not None:
            future.add_done_callback(callback)
        future.add_done_callback(self._open.discard)
        return future

    def retrieve_result_callback(self, out: concurrent.futures.Future[Any]) -> Any:
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        for future in list(self._open):
            future.cancel()
        self.terminate()
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel)

    def terminate(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
        self.reset_batch_stats()

    def __reduce__(self) -> tuple[Any, ...]:
        return _anew, (self.backend_kwargs, self.nesting_level)


def register() -> None:
    """Makes `joblib.parallel_config("gridcore")` known to joblib, here and in calls."""
    joblib.register_parallel_backend(NAME, GridBackend)


def _run(batch: Callable[[], Any]) -> Any:
    global _batches
    register()
    _batches += 1
    try:
        return batch()
    finally:
        _batches -= 1


def _anew(options: dict[str, Any], nesting_level: int | None) -> GridBackend:
    return GridBackend(nesting_level=nesting_level, **options)
