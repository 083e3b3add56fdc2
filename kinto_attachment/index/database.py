"""The identity of a database, which differs from that of a copy."""

from __future__ import annotations

from typing import Any

from kinto.core.storage.memory import MemoryBasedStorage

# A copy within the same server has another oid, one on another server another system identifier.
# Both stay when a standby takes over.
OID = "SELECT oid::text FROM pg_database WHERE datname = current_database()"
# Unprivileged roles may call it, unless somebody has revoked that.
ALLOWED = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"


class Database:
    """The database of a Kinto storage backend."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def identity(self) -> str:
        """The identity of the database, as far as the database reports it."""
        if isinstance(self._backend, MemoryBasedStorage):
            return "memory"
        if not hasattr(self._backend, "client"):
            return ""
        system = self._ask(SYSTEM) if self._ask(ALLOWED) else ""
        return f"{system}/{self._ask(OID)}"

    def _ask(self, query: str) -> Any:
        from sqlalchemy import text

        with self._backend.client.connect(readonly=True) as session:
            return session.execute(text(query)).scalar()
