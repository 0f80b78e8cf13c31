"""Who asks, and what their token lets them do."""

from __future__ import annotations

from dataclasses import dataclass

from prunectl.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``admin`` may see and touch the jobs of every owner."""

    owner: str
    scopes: frozenset[str]

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    @property
    def sees(self) -> str | None:
        """The one owner whose rows the caller may see; None: everybody's."""
        return None if self.is_admin else self.owner

    def require(self, scope: str) -> None:
        """Raises Forbidden unless one of the caller's scopes covers ``scope``."""
        covered = {"read": {"read", "submit", "admin"}, "submit": {"submit", "admin"}, "admin": {"admin"}}[scope]
        if not covered & self.scopes:
            raise Forbidden(
                f"this token may not {scope}",
                hint=f"an admin can make one that may: prunectl tokens create NAME --scope {scope}",
            )
