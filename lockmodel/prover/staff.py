"""Whether there are workers enough for so many transactions at once."""

from __future__ import annotations

from collections.abc import Sequence

from lockmodel.system import Role, System


class Staff:
    """The workers of `system`, by the transactions that their roles run."""

    def __init__(self, system: System) -> None:
        self._all = system.roles
        self._runs: dict[str, list[Role]] = {}

    def of(self, transaction: str) -> list[Role]:
        """The roles that run `transaction`."""
        if transaction not in self._runs:
            self._runs[transaction] = [r for r in self._all if r.count != 0 and transaction in r.transactions]
        return self._runs[transaction]

    def roles(self, transactions: Sequence[str], *, exactly: bool) -> list[str] | None:
        """A role for each of the transactions, such that there are workers enough; None if there are not.

        Roles that have more than one worker have any number, unless `exactly` as many as the spec says are wanted.
        """
        left = {
            role.name: role.count if role.count is not None and (exactly or role.count == 1) else None
            for role in self._all
        }
        found: list[str] = []
        return found if self._fill(transactions, left, found) else None

    def _fill(self, transactions: Sequence[str], left: dict[str, int | None], found: list[str]) -> bool:
        if len(found) == len(transactions):
            return True
        for role in self.of(transactions[len(found)]):
            count = left[role.name]
            if count == 0:
                continue
            left[role.name] = None if count is None else count - 1
            found.append(role.name)
            if self._fill(transactions, left, found):
                return True
            found.pop()
            left[role.name] = count
        return False
