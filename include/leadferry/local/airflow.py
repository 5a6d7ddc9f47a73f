"""Airflow's public API as the try-out needs it: is it healthy, are the DAGs there, trigger, how did it end.

Reads answer None while the answer is not there yet, so that a caller may ask again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leadferry.local.processes import LocalRunError
from leadferry.local.settings import USER

if TYPE_CHECKING:
    import httpx

_NOT_FOUND, _CONFLICT, _SERVER_ERROR = 404, 409, 500

ENDED = frozenset({"success", "failed"})
"""States of a DAG run that do not change any more."""


class AirflowApi:
    """One Airflow, asked over HTTP; logs in when first needed."""

    def __init__(self, url: str, *, password: str) -> None:
        import httpx

        self._http = httpx.Client(base_url=url, timeout=30)
        self._password = password

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def unhealthy(self, components: tuple[str, ...]) -> list[str]:
        """Return which of the components Airflow does not call healthy (yet); all of them while it is silent."""
        health = self._ask("GET", "/api/v2/monitor/health", login=False)
        return [name for name in components if (health or {}).get(name, {}).get("status") != "healthy"]

    def has_dag(self, dag_id: str) -> bool:
        """Whether Airflow has read the DAG and may run it."""
        dag = self._ask("GET", f"/api/v2/dags/{dag_id}")
        return dag is not None and not dag["is_paused"]

    def import_errors(self) -> list[str]:
        """Return the messages of DAG files that could not be read."""
        errors = self._ask("GET", "/api/v2/importErrors") or {"import_errors": []}
        return [f"{error['filename']}: {error['stack_trace']}" for error in errors["import_errors"]]

    def ensure_pool(self, name: str, *, slots: int) -> bool:
        """Make the pool unless it is there; False while the server does not answer."""
        return self._ask("POST", "/api/v2/pools", json={"name": name, "slots": slots}) is not None

    def trigger(self, dag_id: str, *, run_id: str) -> bool:
        """Start a run unless this very run was started before; False while the server does not answer."""
        body = {"dag_run_id": run_id, "logical_date": None}
        return self._ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body) is not None

    def run_state(self, dag_id: str, *, run_id: str) -> str | None:
        """Return the run's state, such as `running`; see `ENDED`."""
        run = self._ask("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        return None if run is None else str(run["state"])

    def _ask(self, method: str, path: str, *, json: Any = None, login: bool = True) -> dict[str, Any] | None:
        """Return the answer, `{}` for what was there before, None for not there yet and for a server in trouble."""
        import httpx

        try:
            if login and "Authorization" not in self._http.headers:
                self._log_in()
            answer = self._http.request(method, path, json=json)
        except httpx.TransportError:
            return None
        if answer.status_code == _NOT_FOUND or answer.status_code >= _SERVER_ERROR:
            return None
        return {} if answer.status_code == _CONFLICT else self._json(answer)

    def _log_in(self) -> None:
        answer = self._http.post("/auth/token", json={"username": USER, "password": self._password})
        self._http.headers["Authorization"] = f"Bearer {self._json(answer)['access_token']}"

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            what = (
                f"Airflow answered {answer.status_code} to {answer.request.method} {answer.request.url.path}"
            )
            raise LocalRunError(what, hint="See the log of the api-server")
        found: dict[str, Any] = answer.json()
        return found
