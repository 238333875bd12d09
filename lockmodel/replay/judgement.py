"""A finished statement, judged: whether it did what the script says, and what is to be said where it did not.

Postgres may do otherwise than the model (Otherwise, which is the replay's finding), or the statement fails for a reason of its own
(ReplayError, and the SQL is to be mended).
"""

from __future__ import annotations

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from lockmodel.errors import ReplayError, one_line
from lockmodel.replay.pools import PoolEmpty
from lockmodel.replay.script import Command, Outcome
from lockmodel.replay.session import Session


class Otherwise(Exception):
    """Postgres did something else than the script says; `str()` says what.

    `waiting`: the statement that did, if it is not the one that was just sent.
    """

    def __init__(self, message: str, waiting: Command | None = None) -> None:
        self.waiting = waiting
        super().__init__(message)


def judge(session: Session, command: Command | None, name: str) -> None:
    """Whether the finished statement of `session`, the worker `name`, did what was expected. Raises Otherwise.

    `command` is None for one that had waited and must go on.
    """
    assert session.running is not None
    refused, rows = False, -1
    try:
        rows, value, _ = session.running.result()
        refused = command is not None and command.conditional and (rows == 0 or value is False)
    except (errors.LockNotAvailable, PoolEmpty):
        refused = True
    except errors.DeadlockDetected as error:
        raise Otherwise(f"deadlock detected (40P01): {one_line(error.diag.message_detail or '')}") from None
    except errors.SerializationFailure as error:
        raise Otherwise(f"fails: {said(error)}") from None
    except psycopg.Error as error:
        if session.connection.broken:
            raise
        raise failure(session, error, name) from None
    _check_transaction(session)
    must_be = command is not None and command.outcome in (Outcome.REFUSED, Outcome.TIMES_OUT)
    if command is not None and refused is not must_be:
        what = "is refused" if refused else "is granted"
        raise Otherwise(f"{what}, where the model says that it {command.outcome}{no_row(command, rows)}")
    if command is None and refused:
        raise Otherwise("is refused (55P03), where the model says that it goes on")


def found_no_row(session: Session, command: Command) -> bool:
    """Whether the finished `command`, which would lock rows, surely has locked none."""
    assert session.running is not None
    return command.locks_rows and session.running.exception() is None and session.running.result().empty


def _check_transaction(session: Session) -> None:
    """Refuse a statement that ended the transaction it is in. Raises ReplayError."""
    command = session.sent
    if command is None or not command.in_block or command.takes_connection:
        return
    ended = session.connection.info.transaction_status is TransactionStatus.IDLE
    if ended and command.sql not in ("COMMIT", "ROLLBACK"):
        message = "the sql of this step ends the transaction; write a step, commit or rollback, for that"
        raise ReplayError(message, command.position)


def failure(session: Session, error: psycopg.Error, name: str) -> ReplayError:
    """That a statement failed for a reason of its own: nothing is known of the locks then, and the SQL is to be mended."""
    command = session.sent
    position = command.position if command is not None else None
    advice = "mend the sql"
    if isinstance(error, errors.UniqueViolation):
        # Postgres does as it should: the key is taken for good once the transaction that inserted it has committed.
        whose = "that of the transaction it waited for" if session.waited else "that of an earlier transaction"
        advice = f"the row is {whose}; let the step delete it again (INSERT …; DELETE …), or insert another value"
    return ReplayError(f"the statement of this step fails in {name}: {said(error)}; {advice}", position)


def said(error: psycopg.Error) -> str:
    """What Postgres said: `23505 duplicate key value violates unique constraint "t_pkey" (Key (id)=(1) already exists.)`."""
    diag = error.diag
    detail = f" ({diag.message_detail})" if diag.message_detail else ""
    return one_line(f"{error.sqlstate} {diag.message_primary or error}{detail}", 300)


def no_row(command: Command, rows: int) -> str:
    """A hint for a statement that found no row, and so could lock none."""
    if rows != 0:
        return ""
    if command.sql.lstrip().lower().startswith("insert"):
        return "; it inserted nothing, for the key is there already: let the step delete its row again (INSERT …; DELETE …)"
    return "; it found no row to lock: does the schema's SQL insert it?"
