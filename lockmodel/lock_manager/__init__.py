"""Postgres's lock manager as a model that runs: queues, row locks, savepoints, and the deadlock check.

`LockManager` is the whole of it for callers: sessions begin, ask for locks, roll back and commit; it says who gets what, who waits for whom, and
who is aborted. It does no I/O and knows no spec. What it says is measured against real servers (docs/agreement.md).

Read `table` first (the queue of one object), then `detector` (what the deadlock check finds), `rows` and `row_locks` (locks that are
kept in the rows), `keys` (unique indexes), `transactions` and `backends` (what goes back when), `manager` (all together).
"""

from lockmodel.lock_manager.detector import Cycle, Rearrangement
from lockmodel.lock_manager.manager import LockManager, Outcome
from lockmodel.lock_manager.objects import Advisory, Key, Lockable, Row, RowVersion, Table, Transaction
from lockmodel.lock_manager.table import Session, Waiter

__all__ = [
    "Advisory",
    "Cycle",
    "Key",
    "LockManager",
    "Lockable",
    "Outcome",
    "Rearrangement",
    "Row",
    "RowVersion",
    "Session",
    "Table",
    "Transaction",
    "Waiter",
]
