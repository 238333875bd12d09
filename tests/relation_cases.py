"""Statements on relations, each as a spec with real SQL: what tests/test_relations.py compares with a real Postgres."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

HEAD = """\
name: case
sets: {id: [1, 2], n: [1, 2]}
resources:
"""
# Tables of the cases: p is referred to by c, c by d; m is referred to by the partitioned table q.
TABLES = """\
  p_table: {kind: table, stands for: {relation: p}}
  c_table: {kind: table, stands for: {relation: c}}
  d_table: {kind: table, stands for: {relation: d}}
"""
ROWS = """\
  p: {kind: row, per: [id], table: p_table, stands for: {relation: p, row: {id: "{id}"}}}
  c: {kind: row, per: [id, n], table: c_table, stands for: {relation: c, row: {p: "{id}", n: "{n}"}}}
  d: {kind: row, per: [id, n], table: d_table, stands for: {relation: d, row: {p: "{id}", n: "{n}"}}}
"""
PLAIN = """\
CREATE TABLE p (id int PRIMARY KEY, x int);
CREATE TABLE c (p int, n int, x int, y int, PRIMARY KEY (p, n));
CREATE TABLE d (p int, n int, x int, y int, PRIMARY KEY (p, n));
INSERT INTO p VALUES (1), (2);
INSERT INTO c VALUES (1, 1), (1, 2), (2, 1), (2, 2);
INSERT INTO d SELECT * FROM c;
"""
PARTITIONS = """\
  m: {kind: table, stands for: {relation: m}}
  q: {kind: table, stands for: {relation: q}}
  q1: {kind: table, stands for: {relation: q1}}
  q2: {kind: table, stands for: {relation: q2}}
  q3: {kind: table, stands for: {relation: q3}}
"""
PARTITIONED = """\
CREATE TABLE m (id int PRIMARY KEY);
CREATE TABLE q (k int, x int) PARTITION BY LIST (k);
CREATE TABLE q1 PARTITION OF q FOR VALUES IN (1);
CREATE TABLE q2 PARTITION OF q DEFAULT;
CREATE TABLE q3 (k int, x int);
"""
OF_Q = "q: {table: q, partitions: [q1], default partition: q2}"
KEY_OF_Q = "q: {table: q, partitions: [q1], default partition: q2, foreign keys: [{columns: [x], references: m}]}"
DETACH_Q1 = "{detach partition: q1, from: q, sql: ALTER TABLE q DETACH PARTITION q1}"
ATTACH_Q3 = "{attach partition: q3, to: q, sql: ALTER TABLE q ATTACH PARTITION q3 FOR VALUES IN (3)}"
COUNT_D = "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE d SET x = 1 WHERE p = 1 AND n = 1; RETURN NEW; END $$;"
COUNT_D2 = "CREATE FUNCTION touch2() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE d SET x = 1 WHERE p = 1 AND n = 2; RETURN NEW; END $$;"


@dataclass(frozen=True)
class Case:
    """One transaction. `steps` are its steps, each with its SQL; `ddl` is what its tables have besides those of `PLAIN`.

    `takes`: the locks that the last statement adds, as the spec calls them, in order.
    """

    name: str
    steps: str
    takes: str
    relations: str = ""
    ddl: str = ""
    partitioned: bool = False
    rows: bool = True
    """Whether the spec has rows, not only tables: those of a table that is dropped or renamed can't be looked at."""
    ordered: bool = True
    """Whether the order of the locks can be told from outside, by blocking one after another."""

    @property
    def spec(self) -> str:
        """The whole spec."""
        relations = (
            f"relations:\n{textwrap.indent(textwrap.dedent(self.relations).strip(), '  ')}\n" if self.relations else ""
        )
        steps = textwrap.indent(textwrap.dedent(self.steps).strip(), "      ")
        schema = textwrap.indent((PARTITIONED if self.partitioned else PLAIN) + self.ddl, "  ")
        tables = PARTITIONS if self.partitioned else TABLES + ROWS if self.rows else TABLES
        return f"{HEAD}{tables}{relations}transactions:\n  t:\n    steps:\n{steps}\nworkers: 1\nschema: |\n{schema}\n"

    @property
    def locks(self) -> list[str]:
        """What the last statement takes."""
        return re.split(r"(?<=[A-Z]), ", self.takes)


def key(options: str = "", references: str = '"p[id]"') -> str:
    """The foreign key of c to p."""
    return f"c: {{row: c, key: [p, n], foreign keys: [{{columns: [p], references: {references}{options}}}]}}\n"


def fk(action: str = "") -> str:
    return f"ALTER TABLE c ADD FOREIGN KEY (p) REFERENCES p {action};"


CHILDREN = "children: {table: c_table, foreign keys: [{columns: [p], references: p_table}]}"
TRIGGERED = """
c:
  row: c
  triggers:
    t_late: {after: [insert, update], do: [{update: "d[1, 2]"}]}
    a_soon: {after: [insert, update], do: [{update: "d[1, 1]"}]}
  foreign keys: [{columns: [p], references: "p[id]"}]
"""
TRIGGERS = f"""{fk()}
{COUNT_D}
{COUNT_D2}
CREATE TRIGGER t_late AFTER INSERT OR UPDATE ON c FOR EACH ROW EXECUTE FUNCTION touch2();
CREATE TRIGGER a_soon AFTER INSERT OR UPDATE ON c FOR EACH ROW EXECUTE FUNCTION touch();
"""

CASES = [
    # Statements on rows, without anything behind them.
    Case("select", "- {select: p, sql: SELECT * FROM p}", "p_table ACCESS SHARE"),
    Case(
        "select-for-update",
        "- {select: 'p[1]', for: UPDATE, sql: SELECT * FROM p WHERE id = 1 FOR UPDATE}",
        "p_table ROW SHARE, p[1] FOR UPDATE",
    ),
    Case(
        "select-for-key-share",
        "- {select: 'p[1]', for: KEY SHARE NOWAIT, sql: SELECT * FROM p WHERE id = 1 FOR KEY SHARE NOWAIT}",
        "p_table ROW SHARE, p[1] FOR KEY SHARE",
        ordered=False,
    ),
    Case(
        "select-join",
        "- {select: ['c[1, 1]', 'p[1]'], for: UPDATE, sql: SELECT * FROM c JOIN p ON p.id = c.p WHERE p.id = 1 AND n = 1 FOR UPDATE}",
        "c_table ROW SHARE, p_table ROW SHARE, c[1, 1] FOR UPDATE, p[1] FOR UPDATE",
    ),
    Case(
        "select-join-of",
        "- {select: ['c[1, 1]', 'p[1]'], for: SHARE, of: c, sql: SELECT * FROM c JOIN p ON p.id = c.p WHERE p.id = 1 AND n = 1 FOR SHARE OF c}",
        "c_table ROW SHARE, p_table ACCESS SHARE, c[1, 1] FOR SHARE",
    ),
    Case(
        "select-rows",
        "- {select: 'c[1, i]', rows: {i: n}, for: UPDATE, sql: SELECT * FROM c WHERE p = 1 ORDER BY n FOR UPDATE}",
        "c_table ROW SHARE, c[1, 1] FOR UPDATE, c[1, 2] FOR UPDATE",
    ),
    Case(
        "update",
        "- {update: 'p[1]', sql: UPDATE p SET x = 1 WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR NO KEY UPDATE",
    ),
    Case(
        "update-key",
        "- {update: 'p[1]', columns: [id], sql: UPDATE p SET id = 9 WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE",
        relations="p: {row: p, key: [id]}",
    ),
    Case("delete", "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}", "p_table ROW EXCLUSIVE, p[1] FOR UPDATE"),
    Case("insert", "- {insert: p_table, sql: INSERT INTO p VALUES (9)}", "p_table ROW EXCLUSIVE"),
    Case(
        "upsert",
        "- {insert: 'p[1]', on conflict: do update, sql: INSERT INTO p VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR NO KEY UPDATE",
    ),
    Case(
        "upsert-key",
        "- {insert: 'p[1]', on conflict: do update, columns: [id], sql: INSERT INTO p VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 9}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE",
        relations="p: {row: p, key: [id]}",
    ),
    Case(
        "upsert-new",
        "- {insert: children, on conflict: do update, exists: false, sql: 'INSERT INTO c VALUES (1, 9) ON CONFLICT (p, n) DO UPDATE SET x = 1'}",
        "c_table ROW EXCLUSIVE, p_table ROW SHARE, p[1] FOR KEY SHARE",
        relations="children: {table: c_table, foreign keys: [{columns: [p], references: 'p[1]'}]}",
        ddl=fk(),
    ),
    Case(
        "upsert-there",
        "- {insert: 'c[1, 1]', on conflict: do update, exists: true, sql: 'INSERT INTO c VALUES (1, 1) ON CONFLICT (p, n) DO UPDATE SET x = 1'}",
        "c_table ROW EXCLUSIVE, c[1, 1] FOR NO KEY UPDATE",
        relations=key(),
        ddl=fk(),
    ),
    # Foreign keys, from the side that refers.
    Case(
        "key-insert",
        "- {insert: 'c[1, 1]', sql: 'INSERT INTO c VALUES (1, 9)'}",
        "c_table ROW EXCLUSIVE, p_table ROW SHARE, p[1] FOR KEY SHARE",
        key(),
        fk(),
    ),
    Case(
        "key-insert-null",
        "- {insert: 'c[1, 1]', columns: [p, n], sql: 'INSERT INTO c VALUES (1, 9)'}",
        "c_table ROW EXCLUSIVE, p_table ROW SHARE, p[1] FOR KEY SHARE",
        "c: {row: c, foreign keys: [{columns: [p], references: 'p[id]'}, {columns: [x], references: 'p[2]'}]}",
        fk() + "ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES p;",
    ),
    Case(
        "key-update-other-column",
        "- {update: 'c[1, 1]', sql: UPDATE c SET x = 1 WHERE p = 1 AND n = 1}",
        "c_table ROW EXCLUSIVE, c[1, 1] FOR NO KEY UPDATE",
        key(),
        fk(),
    ),
    Case(
        "key-update-twice",
        "- {update: 'c[1, 1]', sql: UPDATE c SET x = 1 WHERE p = 1 AND n = 1}\n- {update: 'c[1, 1]', sql: UPDATE c SET x = 2 WHERE p = 1 AND n = 1}",
        "p_table ROW SHARE, p[1] FOR KEY SHARE",
        key(),
        fk(),
    ),
    Case(
        "key-update-after-rollback",
        "- savepoint: s\n- {update: 'c[1, 1]', sql: UPDATE c SET x = 1 WHERE p = 1 AND n = 1}\n- rollback to: s\n"
        "- {update: 'c[1, 1]', again: false, sql: UPDATE c SET x = 2 WHERE p = 1 AND n = 1}",
        "c_table ROW EXCLUSIVE, c[1, 1] FOR NO KEY UPDATE",
        key(),
        fk(),
        ordered=False,
    ),
    Case(
        "two-keys",
        "- {insert: 'c[1, 1]', values: {}, sql: 'INSERT INTO c VALUES (1, 9, 2)'}",
        "c_table ROW EXCLUSIVE, p_table ROW SHARE, p[2] FOR KEY SHARE, p[1] FOR KEY SHARE",
        "c: {row: c, foreign keys: [{columns: [x], references: 'p[2]'}, {columns: [p], references: 'p[id]'}]}",
        "ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES p; " + fk(),
    ),
    # Foreign keys, from the side that is referred to.
    Case(
        "no-action",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW SHARE, p_table ROW SHARE",
        "children: {table: c_table, foreign keys: [{columns: [p], references: 'p[1]'}]}",
        "DELETE FROM c;" + fk(),
    ),
    Case(
        "restrict",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW SHARE",
        "children: {table: c_table, foreign keys: [{columns: [p], references: 'p[1]', on delete: restrict}]}",
        "DELETE FROM c;" + fk("ON DELETE RESTRICT"),
    ),
    Case(
        "cascade",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, c[1, 1] FOR UPDATE, c[1, 2] FOR UPDATE",
        key(", on delete: cascade, order: forward"),
        fk("ON DELETE CASCADE"),
    ),
    Case(
        "cascade-twice",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, c[1, 1] FOR UPDATE, c[1, 2] FOR UPDATE, "
        "d_table ROW EXCLUSIVE, d[1, 1] FOR UPDATE, d[1, 2] FOR UPDATE",
        key(", on delete: cascade, order: forward")
        + "d: {row: d, foreign keys: [{columns: [p, n], references: 'c[id, n]', on delete: cascade, order: forward}]}",
        fk("ON DELETE CASCADE") + "ALTER TABLE d ADD FOREIGN KEY (p, n) REFERENCES c ON DELETE CASCADE;",
    ),
    Case(
        # Both children are reached before the trigger of the first of them fires.
        "cascade-then-triggers",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, c[1, 1] FOR UPDATE, c[1, 2] FOR UPDATE, "
        "d_table ROW EXCLUSIVE, d[1, 1] FOR UPDATE, d[1, 2] FOR UPDATE, p[2] FOR NO KEY UPDATE",
        """
        c:
          row: c
          foreign keys: [{columns: [p], references: 'p[id]', on delete: cascade, order: forward}]
          triggers: {t: {after: delete, do: [{update: 'p[2]'}]}}
        d: {row: d, foreign keys: [{columns: [p], references: 'p[id]', on delete: cascade, order: forward}]}
        """,
        fk("ON DELETE CASCADE")
        + "ALTER TABLE d ADD FOREIGN KEY (p) REFERENCES p ON DELETE CASCADE;"
        + "CREATE FUNCTION two() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE p SET x = 1 WHERE id = 2; RETURN NEW; END $$;"
        + "CREATE TRIGGER t AFTER DELETE ON c FOR EACH ROW EXECUTE FUNCTION two();",
    ),
    Case(
        "set-null",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, c[1, 1] FOR NO KEY UPDATE, c[1, 2] FOR NO KEY UPDATE",
        "c: {row: c, foreign keys: [{columns: [x], references: 'p[id]', on delete: set null, order: forward}]}",
        "UPDATE c SET x = p; VACUUM c;".replace("VACUUM c;", "")
        + "ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES p ON DELETE SET NULL;",
    ),
    Case(
        "cascade-update",
        "- {update: 'p[1]', columns: [id], sql: UPDATE p SET id = 9 WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, c[1, 1] FOR NO KEY UPDATE, c[1, 2] FOR NO KEY UPDATE, p_table ROW SHARE",
        """
        p: {row: p, key: [id]}
        c: {row: c, foreign keys: [{columns: [x], references: 'p[id]', on update: cascade, order: forward}]}
        """,
        "UPDATE c SET x = p; ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES p ON UPDATE CASCADE;",
    ),
    Case(
        "cascade-update-part-of-a-key",
        "- {update: 'p[1]', columns: [id], sql: UPDATE p SET id = 9 WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, c[1, 1] FOR UPDATE, c[1, 2] FOR UPDATE, p_table ROW SHARE",
        "p: {row: p, key: [id]}\n" + key(", on update: cascade, order: forward"),
        fk("ON UPDATE CASCADE"),
    ),
    Case(
        "update-key-no-action",
        "- {update: 'p[1]', columns: [id], sql: UPDATE p SET id = 9 WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW SHARE, p_table ROW SHARE",
        "p: {row: p, key: [id]}\nchildren: {table: c_table, foreign keys: [{columns: [p], references: 'p[1]'}]}",
        "DELETE FROM c;" + fk(),
    ),
    # Triggers.
    Case(
        # RI_ConstraintTrigger_… sorts before names that begin with a small letter.
        "triggers-by-name",
        "- {insert: 'c[1, 1]', sql: 'INSERT INTO c VALUES (1, 9)'}",
        "c_table ROW EXCLUSIVE, p_table ROW SHARE, p[1] FOR KEY SHARE, d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE, d[1, 2] FOR NO KEY UPDATE",
        TRIGGERED,
        TRIGGERS,
    ),
    Case(
        "trigger-before-the-key",
        "- {insert: 'c[1, 1]', sql: 'INSERT INTO c VALUES (1, 9)'}",
        "c_table ROW EXCLUSIVE, d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE, p_table ROW SHARE, p[1] FOR KEY SHARE",
        """
        c:
          row: c
          foreign keys: [{columns: [p], references: 'p[id]'}]
          triggers: {Audit: {after: insert, do: [{update: 'd[1, 1]'}]}}
        """,
        fk() + COUNT_D + 'CREATE TRIGGER "Audit" AFTER INSERT ON c FOR EACH ROW EXECUTE FUNCTION touch();',
    ),
    Case(
        "triggers-of-many-rows",
        "- {update: 'c[1, i]', rows: {i: n}, columns: [x], sql: UPDATE c SET x = 1 WHERE p = 1}",
        "c_table ROW EXCLUSIVE, c[1, 1] FOR NO KEY UPDATE, c[1, 2] FOR NO KEY UPDATE, d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE, d[1, 2] FOR NO KEY UPDATE",
        "c: {row: c, triggers: {t: {after: update, of: [x], do: [{update: 'd[id, n]'}]}, u: {after: update, of: [n], do: [{delete: 'p[1]'}]}}}",
        "CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE d SET x = 1 WHERE p = NEW.p AND n = NEW.n; RETURN NEW; END $$;"
        "CREATE TRIGGER t AFTER UPDATE OF x ON c FOR EACH ROW EXECUTE FUNCTION same();",
    ),
    Case(
        "before-update",
        "- {update: 'c[1, 1]', sql: UPDATE c SET x = 1 WHERE p = 1 AND n = 1}",
        "c_table ROW EXCLUSIVE, c[1, 1] FOR NO KEY UPDATE, d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE",
        "c: {row: c, triggers: {t: {before: update, do: [{update: 'd[1, 1]'}]}}}",
        COUNT_D + "CREATE TRIGGER t BEFORE UPDATE ON c FOR EACH ROW EXECUTE FUNCTION touch();",
    ),
    Case(
        "before-each-statement",
        "- {update: 'c[1, 1]', sql: UPDATE c SET x = 1 WHERE p = 1 AND n = 1}",
        "c_table ROW EXCLUSIVE, d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE, c[1, 1] FOR NO KEY UPDATE, d[1, 2] FOR NO KEY UPDATE",
        """
        c:
          row: c
          triggers:
            t: {before: update, each: statement, do: [{update: 'd[1, 1]'}]}
            a: {after: update, each: statement, do: [{update: 'd[1, 2]'}]}
        """,
        COUNT_D
        + COUNT_D2
        + "CREATE TRIGGER t BEFORE UPDATE ON c FOR EACH STATEMENT EXECUTE FUNCTION touch();"
        + "CREATE TRIGGER a AFTER UPDATE ON c FOR EACH STATEMENT EXECUTE FUNCTION touch2();",
    ),
    Case(
        "trigger-fires-keys",
        "- {update: 'p[1]', sql: UPDATE p SET x = 1 WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR NO KEY UPDATE, c_table ROW EXCLUSIVE, p_table ROW SHARE, p[2] FOR KEY SHARE, d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE",
        """
        p:
          row: p
          triggers:
            a: {after: update, do: [{insert: 'c[2, 1]'}]}
            b: {after: update, do: [{update: 'd[1, 1]'}]}
        c: {row: c, foreign keys: [{columns: [p], references: 'p[id]'}]}
        """,
        fk()
        + COUNT_D
        + "CREATE FUNCTION add() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO c VALUES (2, 9); RETURN NEW; END $$;"
        + "CREATE TRIGGER a AFTER UPDATE ON p FOR EACH ROW EXECUTE FUNCTION add();"
        + "CREATE TRIGGER b AFTER UPDATE ON p FOR EACH ROW EXECUTE FUNCTION touch();",
    ),
    Case(
        "upsert-triggers",
        "- {insert: 'c[1, 1]', on conflict: do update, exists: true, sql: 'INSERT INTO c VALUES (1, 1) ON CONFLICT (p, n) DO UPDATE SET x = 1'}",
        "c_table ROW EXCLUSIVE, d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE, c[1, 1] FOR NO KEY UPDATE, d[1, 2] FOR NO KEY UPDATE",
        """
        c:
          row: c
          triggers:
            t: {before: insert, do: [{update: 'd[1, 1]'}]}
            a: {after: update, do: [{update: 'd[1, 2]'}]}
            b: {after: insert, do: [{update: 'p[1]'}]}
        """,
        COUNT_D
        + COUNT_D2
        + "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE p SET x = 1; RETURN NEW; END $$;"
        + "CREATE TRIGGER t BEFORE INSERT ON c FOR EACH ROW EXECUTE FUNCTION touch();"
        + "CREATE TRIGGER a AFTER UPDATE ON c FOR EACH ROW EXECUTE FUNCTION touch2();"
        + "CREATE TRIGGER b AFTER INSERT ON c FOR EACH ROW EXECUTE FUNCTION never();",
    ),
    Case(
        "deferred-key",
        "- {insert: 'c[1, 1]', sql: 'INSERT INTO c VALUES (1, 9)'}\n- {update: 'd[1, 1]', sql: UPDATE d SET x = 1 WHERE p = 1 AND n = 1}",
        "p_table ROW SHARE, p[1] FOR KEY SHARE",
        key(", deferred: true"),
        fk("DEFERRABLE INITIALLY DEFERRED"),
    ),
    Case(
        "deferred-trigger",
        "- {insert: 'c[1, 1]', sql: 'INSERT INTO c VALUES (1, 9)'}\n- {update: 'p[1]', sql: UPDATE p SET x = 1 WHERE id = 1}",
        "d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE",
        "c: {row: c, triggers: {t: {after: insert, deferred: true, do: [{update: 'd[1, 1]'}]}}}",
        COUNT_D
        + "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON c DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION touch();",
    ),
    Case(
        "no-action-deferred",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}\n- {update: 'd[1, 1]', sql: UPDATE d SET x = 1 WHERE p = 1 AND n = 1}",
        "c_table ROW SHARE, p_table ROW SHARE",
        "children: {table: c_table, foreign keys: [{columns: [p], references: 'p[1]', deferred: true}]}",
        "DELETE FROM c;" + fk("DEFERRABLE INITIALLY DEFERRED"),
    ),
    Case(
        # RESTRICT does not wait for the commit.
        "restrict-deferred",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}\n- {update: 'd[1, 1]', sql: UPDATE d SET x = 1 WHERE p = 1 AND n = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW SHARE, d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE",
        "children: {table: c_table, foreign keys: [{columns: [p], references: 'p[1]', on delete: restrict, deferred: true}]}",
        "DELETE FROM c;" + fk("ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED"),
        ordered=False,
    ),
    Case(
        "cascade-of-many-rows",
        "- {delete: 'p[i]', rows: {i: id}, sql: DELETE FROM p}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, p[2] FOR UPDATE, c_table ROW EXCLUSIVE, "
        "c[1, 1] FOR UPDATE, c[1, 2] FOR UPDATE, c[2, 1] FOR UPDATE, c[2, 2] FOR UPDATE",
        key(", on delete: cascade, order: forward"),
        fk("ON DELETE CASCADE"),
    ),
    Case(
        # BEFORE triggers of the rows that a cascade reaches fire at once, AFTER triggers at the end of the statement.
        "cascade-before-and-after",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, c[1, 1] FOR UPDATE, d_table ROW EXCLUSIVE, "
        "d[1, 1] FOR NO KEY UPDATE, c[1, 2] FOR UPDATE, d[1, 2] FOR NO KEY UPDATE",
        """
        c:
          row: c
          foreign keys: [{columns: [p], references: 'p[id]', on delete: cascade, order: forward}]
          triggers:
            a: {before: delete, do: [{update: 'd[1, 1]'}]}
            b: {after: delete, do: [{update: 'd[1, 2]'}]}
        """,
        fk("ON DELETE CASCADE")
        + COUNT_D.replace("RETURN NEW", "RETURN OLD")
        + COUNT_D2
        + "CREATE TRIGGER a BEFORE DELETE ON c FOR EACH ROW EXECUTE FUNCTION touch();"
        + "CREATE TRIGGER b AFTER DELETE ON c FOR EACH ROW EXECUTE FUNCTION touch2();",
    ),
    Case(
        "set-null-fires-triggers",
        "- {delete: 'p[1]', sql: DELETE FROM p WHERE id = 1}",
        "p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, c[1, 1] FOR NO KEY UPDATE, c[1, 2] FOR NO KEY UPDATE, "
        "d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE",
        """
        c:
          row: c
          foreign keys: [{columns: [x], references: 'p[id]', on delete: set null, order: forward}]
          triggers:
            a: {after: update, of: [x], do: [{update: 'd[1, 1]'}]}
            b: {after: update, of: [n], do: [{update: 'd[1, 2]'}]}
        """,
        "UPDATE c SET x = p; ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES p ON DELETE SET NULL;"
        + COUNT_D
        + COUNT_D2
        + "CREATE TRIGGER a AFTER UPDATE OF x ON c FOR EACH ROW EXECUTE FUNCTION touch();"
        + "CREATE TRIGGER b AFTER UPDATE OF n ON c FOR EACH ROW EXECUTE FUNCTION touch2();",
    ),
    Case(
        "key-to-itself",
        "- {update: 'p[2]', columns: [x], sql: UPDATE p SET x = 1 WHERE id = 2}",
        "p_table ROW EXCLUSIVE, p[2] FOR NO KEY UPDATE, p_table ROW SHARE, p[1] FOR KEY SHARE",
        "p: {row: p, key: [id], foreign keys: [{columns: [x], references: 'p[1]'}]}",
        "ALTER TABLE p ADD FOREIGN KEY (x) REFERENCES p;",
    ),
    Case(
        # The trigger's statement has a queue of its own, worked off before the outer one goes on.
        "trigger-with-a-cascade",
        "- {update: 'd[1, 1]', columns: [x], sql: UPDATE d SET x = 1 WHERE p = 1 AND n = 1}",
        "d_table ROW EXCLUSIVE, d[1, 1] FOR NO KEY UPDATE, p_table ROW EXCLUSIVE, p[1] FOR UPDATE, c_table ROW EXCLUSIVE, "
        "c[1, 1] FOR UPDATE, c[1, 2] FOR UPDATE, d_table ROW SHARE, d[1, 2] FOR NO KEY UPDATE",
        """
        d:
          row: d
          triggers:
            a: {after: update, of: [x], do: [{delete: 'p[1]'}]}
            b: {after: update, of: [x], do: ['d[1, 2]': FOR NO KEY UPDATE]}
        c: {row: c, foreign keys: [{columns: [p], references: 'p[id]', on delete: cascade, order: forward}]}
        """,
        fk("ON DELETE CASCADE")
        + "CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM p WHERE id = 1; RETURN NEW; END $$;"
        + "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM d WHERE p = 1 AND n = 2 FOR NO KEY UPDATE; RETURN NEW; END $$;"
        + "CREATE TRIGGER a AFTER UPDATE ON d FOR EACH ROW EXECUTE FUNCTION gone();"
        + "CREATE TRIGGER b AFTER UPDATE ON d FOR EACH ROW EXECUTE FUNCTION look();",
    ),
    # Partitions.
    Case(
        "partitions-select",
        "- {select: q, sql: SELECT * FROM q}",
        "q ACCESS SHARE, q1 ACCESS SHARE, q2 ACCESS SHARE",
        OF_Q,
        "",
        True,
    ),
    Case(
        "partition-select",
        "- {select: q, partition: q1, sql: SELECT * FROM q WHERE k = 1}",
        "q ACCESS SHARE, q1 ACCESS SHARE",
        OF_Q,
        "",
        True,
    ),
    Case(
        "partitions-lock",
        "- {select: q, for: UPDATE, sql: SELECT * FROM q FOR UPDATE}",
        "q ROW SHARE, q1 ROW SHARE, q2 ROW SHARE",
        OF_Q,
        "",
        True,
    ),
    Case(
        "partitions-update",
        "- {update: q, sql: UPDATE q SET x = 1}",
        "q ROW EXCLUSIVE, q1 ROW EXCLUSIVE, q2 ROW EXCLUSIVE",
        OF_Q,
        "",
        True,
    ),
    Case(
        "partition-delete",
        "- {delete: q, partition: q2, sql: DELETE FROM q WHERE k = 7}",
        "q ROW EXCLUSIVE, q2 ROW EXCLUSIVE",
        OF_Q,
        "",
        True,
    ),
    Case(
        "partition-insert",
        "- {insert: q, partition: q1, sql: INSERT INTO q VALUES (1)}",
        "q ROW EXCLUSIVE, q1 ROW EXCLUSIVE",
        OF_Q,
        "",
        True,
    ),
    Case(
        "partitions-truncate",
        "- {truncate: q, sql: TRUNCATE q}",
        "q ACCESS EXCLUSIVE, q1 ACCESS EXCLUSIVE, q2 ACCESS EXCLUSIVE, q1 SHARE, q2 SHARE",
        OF_Q,
        "",
        True,
    ),
    Case(
        "attach",
        "- {attach partition: q3, to: q, sql: ALTER TABLE q ATTACH PARTITION q3 FOR VALUES IN (3)}",
        "q SHARE UPDATE EXCLUSIVE, q2 ACCESS EXCLUSIVE, q3 ACCESS EXCLUSIVE",
        OF_Q,
        "",
        True,
    ),
    Case(
        "attach-with-key",
        "- {attach partition: q3, to: q, sql: ALTER TABLE q ATTACH PARTITION q3 FOR VALUES IN (3)}",
        "q SHARE UPDATE EXCLUSIVE, q2 ACCESS EXCLUSIVE, q3 ACCESS EXCLUSIVE, m SHARE ROW EXCLUSIVE, "
        "q3 SHARE ROW EXCLUSIVE, m ROW SHARE, q3 ACCESS SHARE, m ACCESS SHARE",
        "q: {table: q, partitions: [q1], default partition: q2, foreign keys: [{columns: [x], references: m}]}",
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
    ),
    Case(
        "detach-with-key",
        "- {detach partition: q1, from: q, sql: ALTER TABLE q DETACH PARTITION q1}",
        "q ACCESS EXCLUSIVE, q2 ACCESS EXCLUSIVE, q1 ACCESS EXCLUSIVE, m SHARE ROW EXCLUSIVE, q1 ACCESS SHARE",
        "q: {table: q, partitions: [q1], default partition: q2, foreign keys: [{columns: [x], references: m}]}",
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
    ),
    Case(
        "detach",
        "- {detach partition: q1, from: q, sql: ALTER TABLE q DETACH PARTITION q1}",
        "q ACCESS EXCLUSIVE, q2 ACCESS EXCLUSIVE, q1 ACCESS EXCLUSIVE",
        OF_Q,
        "",
        True,
    ),
    Case(
        # The partition has a foreign key of its own then, and is no partition any more.
        "detach-then-drop",
        f"- {DETACH_Q1}\n- {{drop table: q1, sql: DROP TABLE q1}}",
        "m ACCESS EXCLUSIVE",
        KEY_OF_Q,
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
    ),
    Case(
        "detach-then-attach",
        f"- {DETACH_Q1}\n- {{attach partition: q1, to: q, sql: ALTER TABLE q ATTACH PARTITION q1 FOR VALUES IN (1)}}",
        "q SHARE UPDATE EXCLUSIVE, m ACCESS EXCLUSIVE",
        KEY_OF_Q,
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
    ),
    Case(
        "detach-then-truncate",
        f"- {DETACH_Q1}\n- {{truncate: q1, sql: TRUNCATE q1}}",
        "q1 SHARE",
        KEY_OF_Q,
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
        ordered=False,
    ),
    Case(
        "attach-then-drop",
        f"- {ATTACH_Q3}\n- {{drop table: q3, sql: DROP TABLE q3}}",
        "q ACCESS EXCLUSIVE",
        KEY_OF_Q,
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
    ),
    Case(
        "attach-own-key",
        f"- {ATTACH_Q3}",
        "q SHARE UPDATE EXCLUSIVE, q2 ACCESS EXCLUSIVE, q3 ACCESS EXCLUSIVE, m SHARE ROW EXCLUSIVE, m ACCESS EXCLUSIVE",
        KEY_OF_Q + "\nq3: {table: q3, foreign keys: [{columns: [x], references: m}]}",
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m; ALTER TABLE q3 ADD FOREIGN KEY (x) REFERENCES m;",
        True,
    ),
    Case(
        "attach-key-that-differs",
        f"- {ATTACH_Q3}",
        "q SHARE UPDATE EXCLUSIVE, q2 ACCESS EXCLUSIVE, q3 ACCESS EXCLUSIVE, m SHARE ROW EXCLUSIVE, "
        "q3 SHARE ROW EXCLUSIVE, m ROW SHARE, q3 ACCESS SHARE, m ACCESS SHARE",
        KEY_OF_Q + "\nq3: {table: q3, foreign keys: [{columns: [x], references: m, on delete: cascade}]}",
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m; ALTER TABLE q3 ADD FOREIGN KEY (x) REFERENCES m ON DELETE CASCADE;",
        True,
    ),
    Case(
        "drop-referenced-by-partitions",
        "- {drop table: m, sql: DROP TABLE m CASCADE}",
        "m ACCESS EXCLUSIVE, q2 ACCESS EXCLUSIVE, q1 ACCESS EXCLUSIVE, q ACCESS EXCLUSIVE",
        KEY_OF_Q,
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
        ordered=False,
    ),
    Case(
        "create-partition",
        "- {create partition of: q, sql: CREATE TABLE q4 PARTITION OF q FOR VALUES IN (4)}",
        "q ACCESS EXCLUSIVE, q2 ACCESS EXCLUSIVE, m SHARE ROW EXCLUSIVE, m ACCESS SHARE",
        "q: {table: q, partitions: [q1], default partition: q2, foreign keys: [{columns: [x], references: m}]}",
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
    ),
    Case(
        "drop-partition",
        "- {drop table: q1, sql: DROP TABLE q1}",
        "q ACCESS EXCLUSIVE, q1 ACCESS EXCLUSIVE, q2 ACCESS EXCLUSIVE",
        "q: {table: q, partitions: [q1], default partition: q2, foreign keys: [{columns: [x], references: m}]}",
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
    ),
    Case(
        "drop-partitioned",
        "- {drop table: q, sql: DROP TABLE q}",
        "q ACCESS EXCLUSIVE, q1 ACCESS EXCLUSIVE, q2 ACCESS EXCLUSIVE, m ACCESS EXCLUSIVE",
        "q: {table: q, partitions: [q1], default partition: q2, foreign keys: [{columns: [x], references: m}]}",
        "ALTER TABLE q ADD FOREIGN KEY (x) REFERENCES m;",
        True,
        ordered=False,
    ),
    Case(
        "partitions-index",
        "- {create index: q, sql: CREATE INDEX ON q (x)}",
        "q SHARE, q1 SHARE, q2 SHARE",
        OF_Q,
        "",
        True,
    ),
    # Tables.
    Case("reindex-beside-rows", "- {reindex table: p_table, sql: REINDEX TABLE p}", "p_table SHARE"),
    Case("truncate", "- {truncate: p, sql: TRUNCATE p}", "p_table ACCESS EXCLUSIVE, p_table SHARE"),
    Case(
        "truncate-several",
        "- {truncate: [d, p], sql: 'TRUNCATE d, p'}",
        "d_table ACCESS EXCLUSIVE, p_table ACCESS EXCLUSIVE, d_table SHARE, p_table SHARE",
    ),
    Case(
        "truncate-cascade",
        "- {truncate: p, cascade: true, sql: TRUNCATE p CASCADE}",
        "p_table ACCESS EXCLUSIVE, c_table ACCESS EXCLUSIVE, d_table ACCESS EXCLUSIVE, p_table SHARE, c_table SHARE, d_table SHARE",
        key() + "d: {row: d, foreign keys: [{columns: [p, n], references: 'c[id, n]'}]}",
        fk() + "ALTER TABLE d ADD FOREIGN KEY (p, n) REFERENCES c;",
    ),
    Case(
        "drop-child",
        "- {drop table: c_table, sql: DROP TABLE c}",
        "c_table ACCESS EXCLUSIVE, p_table ACCESS EXCLUSIVE",
        CHILDREN,
        fk(),
        rows=False,
    ),
    Case(
        "drop-parent",
        "- {drop table: p_table, sql: DROP TABLE p CASCADE}",
        "p_table ACCESS EXCLUSIVE, c_table ACCESS EXCLUSIVE",
        CHILDREN,
        fk(),
        rows=False,
        ordered=False,
    ),
]


def _table(name: str, step: str, sql: str, takes: str, *, ddl: str = "", ordered: bool = True) -> Case:
    return Case(name, f'- {{{step}, sql: "{sql}"}}', takes, ddl=ddl, rows=False, ordered=ordered)


_TOUCH = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
_AX, _SUE, _SRE = "p_table ACCESS EXCLUSIVE", "p_table SHARE UPDATE EXCLUSIVE", "p_table SHARE ROW EXCLUSIVE"
_ADD_KEY = "c_table SHARE ROW EXCLUSIVE, p_table SHARE ROW EXCLUSIVE"
CASES += [
    _table("create-index", "create index: p_table", "CREATE INDEX ON p (x)", "p_table SHARE"),
    _table("drop-index", "drop index: p_table", "DROP INDEX i", _AX, ddl="CREATE INDEX i ON p (x);"),
    _table("reindex", "reindex table: p_table", "REINDEX TABLE p", "p_table SHARE"),
    _table(
        "create-trigger",
        "create trigger: p_table",
        "CREATE TRIGGER t AFTER INSERT ON p EXECUTE FUNCTION f()",
        _SRE,
        ddl=_TOUCH,
    ),
    _table(
        "drop-trigger",
        "drop trigger: p_table",
        "DROP TRIGGER t ON p",
        f"p_table ACCESS SHARE, {_AX}",
        ddl=_TOUCH + "CREATE TRIGGER t AFTER INSERT ON p EXECUTE FUNCTION f();",
    ),
    _table("create-policy", "create policy: p_table", "CREATE POLICY x ON p", _AX),
    _table("create-statistics", "create statistics: p_table", "CREATE STATISTICS s ON id, x FROM p", _SUE),
    _table("comment", "comment on: p_table", "COMMENT ON TABLE p IS 'x'", _SUE),
    *(
        _table(
            action.replace(" ", "-"), f"alter table: p_table, action: {action}", f"ALTER TABLE p {sql}", takes, ddl=ddl
        )
        for action, sql, takes, ddl in (
            ("add column", "ADD COLUMN y int", _AX, ""),
            ("drop column", "DROP COLUMN x", _AX, ""),
            ("alter type", "ALTER COLUMN x TYPE bigint", f"{_AX}, p_table SHARE", ""),
            ("set default", "ALTER COLUMN x SET DEFAULT 1", _AX, ""),
            ("drop default", "ALTER COLUMN x DROP DEFAULT", _AX, ""),
            ("set not null", "ALTER COLUMN x SET NOT NULL", _AX, "UPDATE p SET x = 1;"),
            ("drop not null", "ALTER COLUMN x DROP NOT NULL", _AX, ""),
            ("add check", "ADD CHECK (x > 0)", _AX, ""),
            ("add unique", "ADD UNIQUE (x)", f"{_AX}, p_table SHARE", ""),
            (
                "add primary key",
                "ADD PRIMARY KEY (id)",
                f"{_AX}, p_table SHARE",
                "ALTER TABLE p DROP CONSTRAINT p_pkey;",
            ),
            ("drop constraint", "DROP CONSTRAINT k", _AX, "ALTER TABLE p ADD CONSTRAINT k CHECK (x > 0);"),
            (
                "validate constraint",
                "VALIDATE CONSTRAINT k",
                _SUE,
                "ALTER TABLE p ADD CONSTRAINT k CHECK (x > 0) NOT VALID;",
            ),
            ("rename column", "RENAME COLUMN x TO y", _AX, ""),
            ("rename", "RENAME TO r", _AX, ""),
            ("owner", "OWNER TO CURRENT_USER", _AX, ""),
            ("enable row level security", "ENABLE ROW LEVEL SECURITY", _AX, ""),
            ("disable row level security", "DISABLE ROW LEVEL SECURITY", _AX, ""),
            ("enable trigger", "ENABLE TRIGGER USER", _SRE, ""),
            ("disable trigger", "DISABLE TRIGGER USER", _SRE, ""),
            ("set statistics", "ALTER COLUMN x SET STATISTICS 100", _SUE, ""),
            ("set parameters", "SET (fillfactor = 50)", _SUE, ""),
        )
    ),
    *(
        _table(
            name, f"alter table: c_table, action: {action}, references: p_table", f"ALTER TABLE c {sql}", takes, ddl=ddl
        )
        for name, action, sql, takes, ddl in (
            (
                "add-foreign-key",
                "add foreign key",
                "ADD FOREIGN KEY (p) REFERENCES p",
                f"{_ADD_KEY}, p_table ROW SHARE, c_table ACCESS SHARE, p_table ACCESS SHARE",
                "",
            ),
            (
                "add-foreign-key-not-valid",
                "add foreign key not valid",
                "ADD FOREIGN KEY (p) REFERENCES p NOT VALID",
                f"{_ADD_KEY}, c_table ACCESS SHARE, p_table ACCESS SHARE",
                "",
            ),
            (
                "validate-foreign-key",
                "validate constraint",
                "VALIDATE CONSTRAINT k",
                "c_table SHARE UPDATE EXCLUSIVE, p_table ROW SHARE, c_table ACCESS SHARE, p_table ACCESS SHARE",
                "ALTER TABLE c ADD CONSTRAINT k FOREIGN KEY (p) REFERENCES p NOT VALID;",
            ),
            (
                "drop-foreign-key",
                "drop constraint",
                "DROP CONSTRAINT k",
                "c_table ACCESS EXCLUSIVE, p_table ACCESS EXCLUSIVE",
                "ALTER TABLE c ADD CONSTRAINT k FOREIGN KEY (p) REFERENCES p;",
            ),
            (
                "drop-column-with-key",
                "drop column",
                "DROP COLUMN x",
                "c_table ACCESS EXCLUSIVE, p_table ACCESS EXCLUSIVE",
                "ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES p;",
            ),
        )
    ),
    *(
        Case(
            f"partitions-{action.replace(' ', '-')}",
            f"- {{alter table: q, action: {action}, sql: ALTER TABLE q {sql}}}",
            ", ".join(f"{table} {mode}" for table in ("q", "q1", "q2")[: 3 if all_of_them else 1]) + more,
            OF_Q,
            f"{_TOUCH} CREATE TRIGGER t AFTER INSERT ON q FOR EACH ROW EXECUTE FUNCTION f();"
            "ALTER TABLE q ALTER COLUMN k SET NOT NULL; ALTER TABLE q ADD CONSTRAINT o CHECK (x > 0); ALTER TABLE q ADD CONSTRAINT v CHECK (x > 1) NOT VALID;",
            True,
        )
        for action, sql, mode, all_of_them, more in (
            ("add column", "ADD COLUMN y int", "ACCESS EXCLUSIVE", True, ""),
            ("drop column", "DROP COLUMN x", "ACCESS EXCLUSIVE", True, ""),
            ("alter type", "ALTER COLUMN x TYPE bigint", "ACCESS EXCLUSIVE", True, ", q1 SHARE, q2 SHARE"),
            ("set default", "ALTER COLUMN x SET DEFAULT 1", "ACCESS EXCLUSIVE", True, ""),
            ("set not null", "ALTER COLUMN x SET NOT NULL", "ACCESS EXCLUSIVE", True, ""),
            ("add check", "ADD CHECK (x > 0)", "ACCESS EXCLUSIVE", True, ""),
            ("rename column", "RENAME COLUMN x TO y", "ACCESS EXCLUSIVE", True, ""),
            ("drop default", "ALTER COLUMN x DROP DEFAULT", "ACCESS EXCLUSIVE", True, ""),
            ("drop not null", "ALTER COLUMN k DROP NOT NULL", "ACCESS EXCLUSIVE", True, ""),
            ("drop constraint", "DROP CONSTRAINT o", "ACCESS EXCLUSIVE", True, ""),
            ("validate constraint", "VALIDATE CONSTRAINT v", "SHARE UPDATE EXCLUSIVE", True, ""),
            ("enable trigger", "ENABLE TRIGGER t", "SHARE ROW EXCLUSIVE", True, ""),
            ("rename", "RENAME TO r", "ACCESS EXCLUSIVE", False, ""),
            ("owner", "OWNER TO CURRENT_USER", "ACCESS EXCLUSIVE", False, ""),
            ("enable row level security", "ENABLE ROW LEVEL SECURITY", "ACCESS EXCLUSIVE", False, ""),
            ("disable trigger", "DISABLE TRIGGER t", "SHARE ROW EXCLUSIVE", True, ""),
            ("set statistics", "ALTER COLUMN x SET STATISTICS 9", "SHARE UPDATE EXCLUSIVE", True, ""),
        )
    ),
    *(
        Case(f"partitions-{step.replace(' ', '-')}", f"- {{{step}: q, sql: {sql}}}", takes, OF_Q, ddl, True)
        for step, sql, takes, ddl in (
            (
                "drop index",
                "DROP INDEX i",
                "q ACCESS EXCLUSIVE, q1 ACCESS EXCLUSIVE, q2 ACCESS EXCLUSIVE",
                "CREATE INDEX i ON q (x);",
            ),
            (
                "create trigger",
                "CREATE TRIGGER t AFTER INSERT ON q FOR EACH ROW EXECUTE FUNCTION f()",
                "q SHARE ROW EXCLUSIVE, q1 SHARE ROW EXCLUSIVE, q2 SHARE ROW EXCLUSIVE",
                _TOUCH,
            ),
            ("create policy", "CREATE POLICY o ON q", "q ACCESS EXCLUSIVE", ""),
            ("create statistics", "'CREATE STATISTICS s ON k, x FROM q'", "q SHARE UPDATE EXCLUSIVE", ""),
            ("comment on", "COMMENT ON TABLE q IS 'q'", "q SHARE UPDATE EXCLUSIVE", ""),
        )
    ),
]
