"""A small application, unaware of lockmodel, as the target of replays: transfers between accounts, with an audit table."""

from __future__ import annotations

from typing import Any

from psycopg import sql


class Bank:
    """Transfers; with `ordered`, the two accounts are locked in the order of their numbers."""

    def __init__(self, schema: str, ordered: bool = False) -> None:
        self.schema = schema
        self.ordered = ordered

    def _table(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, name)

    async def set_up(self, connect: Any) -> None:
        async with connect() as connection:
            make = "CREATE TABLE {} (id int PRIMARY KEY, balance int NOT NULL)"
            await connection.execute(sql.SQL(make).format(self._table("account")))
            await connection.execute(sql.SQL("INSERT INTO {} VALUES (0, 100), (1, 100)").format(self._table("account")))
            await connection.execute(sql.SQL("CREATE TABLE {} (note text)").format(self._table("audit")))

    async def transfer(self, connect: Any, source: int, target: int) -> None:
        changes = [(source, -10), (target, 10)]
        async with connect() as connection, connection.transaction():
            for number, change in sorted(changes) if self.ordered else changes:
                update = sql.SQL("UPDATE {} SET balance = balance + %s WHERE id = %s").format(self._table("account"))
                await connection.execute(update, (change, number))
            await connection.execute(sql.SQL("INSERT INTO {} VALUES ('moved')").format(self._table("audit")))

    async def close_books(self, connect: Any) -> None:
        """Two transactions: a look at all accounts, then an exclusive lock on the audit table."""
        async with connect() as connection:
            async with connection.transaction():
                await connection.execute(sql.SQL("SELECT pg_advisory_xact_lock(42)"))
                await connection.execute(
                    sql.SQL("SELECT * FROM {} ORDER BY id FOR SHARE").format(self._table("account"))
                )
            async with connection.transaction():
                lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(self._table("audit"))
                await connection.execute(lock)

    async def change_and_note(self, connect: Any, first: int, second: int) -> None:
        """One account is changed, then another opened if it is not there."""
        async with connect() as connection, connection.transaction():
            update = sql.SQL("UPDATE {} SET balance = 0 WHERE id = %s").format(self._table("account"))
            await connection.execute(update, (first,))
            insert = sql.SQL("INSERT INTO {} VALUES (%s, 0) ON CONFLICT DO NOTHING").format(self._table("account"))
            await connection.execute(insert, (second,))

    async def look_twice(self, connect: Any) -> None:
        """Locks account 0, and account 1 in a savepoint; both without changing them."""
        look = sql.SQL("SELECT FROM {} WHERE id = %s FOR UPDATE").format(self._table("account"))
        async with connect() as connection, connection.transaction():
            await connection.execute(look, (0,))
            async with connection.transaction():
                await connection.execute(look, (1,))

    async def look_at_all(self, connect: Any, falling: bool = False) -> None:
        """Locks both accounts in one statement, in the order of their numbers or against it."""
        look = sql.SQL("SELECT FROM {} ORDER BY id {} FOR UPDATE").format(
            self._table("account"), sql.SQL("DESC" if falling else "ASC")
        )
        async with connect() as connection, connection.transaction():
            await connection.execute(look)

    async def broken(self, connect: Any) -> None:
        async with connect() as connection:
            await connection.execute("SELECT 1/0")
