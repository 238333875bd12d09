"""Random foreign keys, triggers and statements on the tables of `relation_cases`, as a spec with real SQL."""

from __future__ import annotations

import random

from relation_cases import Case

_ROWS = {
    "p[2]": "p SET x = 2 WHERE id = 2",
    "d[1, 1]": "d SET x = 2 WHERE p = 1 AND n = 1",
    "d[2, 1]": "d SET x = 2 WHERE p = 2 AND n = 1",
}
"""Rows that triggers update, and how."""
_STATEMENTS = {
    "insert: 'c[1, 1]', columns: [p, n]": "INSERT INTO c VALUES (1, 9)",
    "update: 'c[1, 1]', columns: [y]": "UPDATE c SET y = 3 WHERE p = 1 AND n = 1",
    "update: 'c[1, i]', columns: [y], rows: {i: n}": "UPDATE c SET y = 3 WHERE p = 1",
    "delete: 'c[1, 1]'": "DELETE FROM c WHERE p = 1 AND n = 1",
    "delete: 'c[2, i]', rows: {i: n}": "DELETE FROM c WHERE p = 2",
    "delete: 'p[1]'": "DELETE FROM p WHERE id = 1",
    "update: 'p[1]', columns: [id]": "UPDATE p SET id = 9 WHERE id = 1",
    "update: 'p[1]', columns: [x]": "UPDATE p SET x = 3 WHERE id = 1",
    "update: 'd[1, 1]', columns: [x]": "UPDATE d SET x = 3 WHERE p = 1 AND n = 1",
    "update: 'd[1, 2]', columns: [y]": "UPDATE d SET y = 3 WHERE p = 1 AND n = 2",
}


def random_case(seed: int) -> Case:
    """One spec; the same for the same seed."""
    choose = random.Random(seed)
    relations: dict[str, list[str]] = {"p": ["key: [id]"], "c": ["key: [p, n]"], "d": ["key: [p, n]"]}
    ddl: list[str] = []
    _foreign_keys(choose, relations, ddl)
    _triggers(choose, relations, ddl)
    step, sql = choose.choice(list(_STATEMENTS.items()))
    # A second UPDATE of a row checks its foreign keys. (After other statements the row may be gone.)
    twice = step.startswith(("update: 'c", "update: 'd")) and choose.random() < 0.6
    steps = [f'- {{{step}, sql: "{sql}"}}'] * (2 if twice else 1)
    declared = "\n".join(f"{name}: {{row: {name}, {', '.join(parts)}}}" for name, parts in relations.items())
    return Case(f"seed-{seed}", "\n".join(steps), "", declared, "\n".join(ddl))


def _foreign_keys(choose: random.Random, relations: dict[str, list[str]], ddl: list[str]) -> None:
    on = choose.choice(["cascade", "set null", "none"])
    deferred = choose.random() < 0.3
    suffix, word = (" DEFERRABLE INITIALLY DEFERRED", ", deferred: true") if deferred else ("", "")
    if on == "cascade":
        ddl.append(f"ALTER TABLE c ADD FOREIGN KEY (p) REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE{suffix};")
        relations["c"].append(
            f"foreign keys: [{{columns: [p], references: 'p[id]', on delete: cascade, on update: cascade, order: forward{word}}}]"
        )
    elif on == "set null":
        ddl.append("UPDATE c SET x = p;")
        ddl.append(f"ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES p ON DELETE SET NULL ON UPDATE SET NULL{suffix};")
        relations["c"].append(
            f"foreign keys: [{{columns: [x], references: 'p[id]', on delete: set null, on update: set null, order: forward{word}}}]"
        )
    if choose.random() < 0.5:
        ddl.append("ALTER TABLE d ADD FOREIGN KEY (p, n) REFERENCES c ON DELETE CASCADE ON UPDATE CASCADE;")
        relations["d"].append(
            "foreign keys: [{columns: [p, n], references: 'c[id, n]', on delete: cascade, on update: cascade, order: forward}]"
        )


def _triggers(choose: random.Random, relations: dict[str, list[str]], ddl: list[str]) -> None:
    # Statement triggers of rows that a cascade reaches are not modelled.
    alone = not any("on delete" in part for parts in relations.values() for part in parts)
    for table in ("c", "p", "d"):
        triggers = []
        for name in choose.sample(["Audit", "a", "_b", "z"], choose.randint(0, 2)):
            when, each = (
                choose.choice(["before", "after", "after"]),
                choose.choice(["row", "row", "statement"]) if alone else "row",
            )
            events = choose.sample(["insert", "update", "delete"], choose.randint(1, 2))
            row, what = choose.choice(list(_ROWS.items()))
            function = f'"{table}_{name}"'
            ddl.append(
                f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE {what};"
                " IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$;"
            )
            ddl.append(
                f'CREATE TRIGGER "{name}" {when} {" OR ".join(events)} ON {table} FOR EACH {each} EXECUTE FUNCTION {function}();'
            )
            triggers.append(
                f"{name}: {{{when}: [{', '.join(events)}], each: {each}, do: [{{update: '{row}', columns: [x]}}]}}"
            )
        if triggers:
            relations[table].append(f"triggers: {{{', '.join(triggers)}}}")
