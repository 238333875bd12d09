"""What is proved for any number of workers and any size, what is not, and how a deadlock is shown. The specs are as small as can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockmodel import checker
from lockmodel.checker import check
from lockmodel.compiler import compile_spec
from lockmodel.errors import LockmodelError
from lockmodel.exploration import Limits
from lockmodel.overrides import parse_overrides
from lockmodel.parser import load, parse
from lockmodel.prover import Certificate, Harmless, examine, prove_program
from lockmodel.report.grounds import by_circle, order_words, proved
from lockmodel.report.json import report
from lockmodel.report.page import Page
from lockmodel.report.terminal import full
from lockmodel.report.trace_file import read_trace
from lockmodel.resolver import resolve
from lockmodel.verdict import CheckResult, Outcome

REPOSITORY = Path(__file__).parent.parent
RESOURCES = (
    "a: {kind: lock, per: [s]}, b: {kind: lock, per: [s]}, both: {kind: lock, per: [s, t]}, gate: {kind: lock}, "
    "x: {kind: lock}, y: {kind: lock}, z: {kind: lock}, row: {kind: row, per: [s], table: table}, table: {kind: table}, "
    "session: {kind: advisory, scope: session}, pool: {kind: pool, size: 2}"
)


def spec(*transactions: str, size: int = 2, more: str = "workers: any") -> str:
    """A spec over RESOURCES; each transaction is `[steps]`, or `{steps: [...], choose: ...}`."""
    bodies = [t if t.startswith("{") else f"{{steps: {t}}}" for t in transactions]
    named = ", ".join(f"t{number}: {body}" for number, body in enumerate(bodies))
    sets = f"sets: {{s: {size}, t: 2, part: [0, 1]}}"
    return f"name: t\n{sets}\nresources: {{{RESOURCES}}}\ntransactions: {{{named}}}\n{more}\n"


def certificate(text: str) -> Certificate | None:
    return prove_program(resolve(parse(text)))


def order(text: str) -> str:
    found = certificate(text)
    assert found is not None and found.order is not None
    return order_words(found.order)


def loop(body: str, order: str = "forward", over: str = "i: s") -> str:
    return f"{{for: {{{over}}}, order: {order}, do: [{body}]}}"


X, Y, Z, GATE = (f"{{{name}: EXCLUSIVE}}" for name in ("x", "y", "z", "gate"))
A = "{'a[i]': EXCLUSIVE}"
B = "{'b[i]': EXCLUSIVE}"
BOTH = "{'both[i, j]': EXCLUSIVE}"
SHARED_A = "{'a[i]': SHARED}"
ROW = "{'row[i]': FOR UPDATE}"

ORDERS = {
    "one order": (spec(f"[{X}, {Y}]", f"[{Y}, {Z}]"), "x < y < z"),
    "a loop": (spec(f"[{loop(A)}]"), "a (ascending)"),
    "all loops in reverse": (spec(f"[{loop(A, 'reverse')}]", f"[{loop(A, 'reverse')}, {X}]"), "a (descending) < x"),
    "two families in turn": (spec(f"[{loop(f'{A}, {B}')}]"), "(by s, ascending: a < b)"),
    "one family after the other": (spec(f"[{loop(A)}, {loop(B)}]"), "a (ascending) < b (ascending)"),
    "two indices": (
        spec("[{for: {i: s, j: t}, do: [{'both[i, j]': EXCLUSIVE}]}]"),
        "both (by s ascending, then by t ascending)",
    ),
    "a loop in a loop": (
        spec(f"[{loop(loop(BOTH, over='j: t'), 'reverse')}]"),
        "both (by s descending, then by t ascending)",
    ),
    "the inner index first": (
        spec(f"[{loop(loop(BOTH, over='i: s'), over='j: t')}]"),
        "both (by t ascending, then by s ascending)",
    ),
    "elements by name": (spec("[{'a[0]': EXCLUSIVE}, {'a[1]': EXCLUSIVE}]"), "a (0 before 1)"),
    "a parameter after a loop": (
        spec(f"{{choose: {{c: s}}, steps: [{loop(A)}, {{'b[c]': EXCLUSIVE}}]}}"),
        "a (ascending) < b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_of_all_locks_is_a_proof_for_every_size(name: str) -> None:
    """The order that the certificate tells is the one that the steps follow, and 1 to 3 elements are proved one by one too."""
    text, words = ORDERS[name]
    assert order(text) == words
    found = certificate(text)
    assert found is not None and (found.every_size, found.as_declared, found.out_of_order) == (True, (), ())
    for size in (1, 2, 3):
        if size == 1 and "a[1]" in text:
            continue
        assert examine(compile_spec(parse(text.replace("s: 2", f"s: {size}")))).certificate is not None


UNPROVED = {
    "two orders": (f"[{X}, {Y}]", f"[{Y}, {X}]"),
    "loops in both directions": (f"[{loop(A)}]", f"[{loop(A, 'reverse')}]"),
    "a rotated loop": (f"[{loop(A, 'rotated')}]",),
    "a loop in any order": (f"[{loop(A, 'any')}]",),
    "two parameters": ("{choose: {c: s, d: s}, steps: [{'a[c]': EXCLUSIVE}, {'a[d]': EXCLUSIVE}]}",),
    "an upgrade": ("[{x: SHARED}, {x: EXCLUSIVE}]",),
    "two different upgrades": (f"[{GATE}, {{x: SHARED}}, {X}]", f"[{Y}, {{x: SHARED}}, {X}]"),
    "elements and a loop against it": (f"[{loop(A)}]", "[{'a[1]': EXCLUSIVE}, {'a[0]': EXCLUSIVE}]"),
    "a ring of three": (f"[{X}, {Y}]", f"[{Y}, {Z}]", f"[{Z}, {X}]"),
    "a shared gate": (f"[{{gate: SHARED}}, {X}, {Y}]", f"[{{gate: SHARED}}, {Y}, {X}]"),
    "a gate for one only": (f"[{GATE}, {X}, {Y}]", f"[{Y}, {X}]"),
    "a gate given back": (
        f"[{{savepoint: p}}, {GATE}, {{rollback to: p}}, {X}, {Y}]",
        f"[{GATE}, {Y}, {X}]",
    ),
    "a gate on one way only": (f"[{{either: [[{GATE}], []]}}, {X}, {Y}]", f"[{GATE}, {Y}, {X}]"),
    "a gate before the savepoint on one way only": (
        f"[{{either: [[{GATE}, {{savepoint: p}}], [{{savepoint: p}}]]}}, {{rollback to: p}}, {X}, {Y}]",
        f"[{GATE}, {Y}, {X}]",
    ),
    "all stripes but each given back": (
        f"[{{savepoint: p}}, {{for: {{i: s}}, do: [{{rollback to: p}}, {SHARED_A}]}}, {X}, {Y}]",
        f"{{choose: {{c: s}}, steps: [{{'a[c]': EXCLUSIVE}}, {Y}, {X}]}}",
    ),
    "a gate that is tried": (f"[{{gate: EXCLUSIVE TRY}}, {X}, {Y}]", f"[{GATE}, {Y}, {X}]"),
    "a gate of another stripe": (
        f"{{choose: {{c: s}}, steps: [{{'a[c]': EXCLUSIVE}}, {X}, {Y}]}}",
        f"{{choose: {{c: s}}, steps: [{{'a[c]': EXCLUSIVE}}, {Y}, {X}]}}",
    ),
    "a lock kept by the session": ("[{session: EXCLUSIVE}]", f"[{X}, {{session: EXCLUSIVE}}]", f"[{X}]"),
    "a release of one of two": (
        "[{session: EXCLUSIVE}, {session: EXCLUSIVE}, {release: session}]",
        f"[{X}, {{session: EXCLUSIVE}}, {{release: session}}]", f"[{X}]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNPROVED)
def test_what_can_deadlock_is_not_proved(name: str) -> None:
    """Each of these deadlocks with two or three workers, which the search confirms."""
    text = spec(*UNPROVED[name])
    assert certificate(text) is None
    result = check(parse(text), parse_overrides([], ["3"]))
    assert result.verdict.violated == "no deadlock"
    assert check(parse(text)).verdict.violated == "no deadlock"


EXCLUDED = {
    "a gate": ((f"[{GATE}, {X}, {Y}]", f"[{GATE}, {Y}, {X}]"), "gate"),
    "a gate taken at the start": (
        (f"{{take at start: {{gate: EXCLUSIVE}}, steps: [{X}, {Y}]}}", f"[{{gate: SHARED}}, {Y}, {X}]"),
        "gate",
    ),
    "an upgrade by one at a time": ((f"[{GATE}, {{x: SHARED}}, {X}]",), "gate"),
    "a gate on both ways": ((f"[{{either: [[{GATE}], [{GATE}]]}}, {X}, {Y}]", f"[{GATE}, {Y}, {X}]"), "gate"),
    "the pair that both hold": (
        ("{choose: {c: s}, steps: [{'a[c]': SHARED}, {'b[c]': SHARED}]}",
         "{choose: {c: s}, steps: [{'a[c]': EXCLUSIVE}, {'b[c]': EXCLUSIVE}, {'b[c]': SHARED}, {'a[c]': SHARED}]}"),
        "a",
    ),
    "all stripes against one": (
        (f"[{loop(SHARED_A)}, {X}, {Y}]", f"{{choose: {{c: s}}, steps: [{{'a[c]': EXCLUSIVE}}, {Y}, {X}]}}"),
        "a",
    ),
    "a table that a former round took": (
        (f"[{loop(ROW)}]", "[{table: EXCLUSIVE}, {'row[0]': FOR SHARE}]"),
        "table",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXCLUDED)
def test_locks_that_exclude_each_other_make_a_proof(name: str) -> None:
    """Both orders occur, but not at the same time; no deadlock with 2 and 3 workers."""
    transactions, lock = EXCLUDED[name]
    text = spec(*transactions)
    found = certificate(text)
    assert found is not None
    told = [one for one in found.out_of_order if one.why is Harmless.KEPT_APART]
    assert not found.out_of_order or any(lock in one.names for one in told), found.out_of_order
    for count in ("2", "3"):
        assert check(parse(text), parse_overrides([], [count])).verdict.outcome is Outcome.HOLDS


def test_session_locks_given_back_are_proved() -> None:
    """What each transaction releases is not held in the next."""
    take = "{session: EXCLUSIVE}"
    found = certificate(spec(f"[{X}, {take}, {{release: session}}]", f"[{take}, {{release: session}}, {X}]"))
    assert found is not None and found.covers_stall
    assert certificate(spec(f"[{X}, {take}, {{release: session}}]", f"[{take}, {X}, {{release: session}}]")) is None


def test_a_session_lock_that_is_kept_can_stall_everybody() -> None:
    """A deadlock is excluded, a global stall is not: a worker that is idle may keep the lock that all wait for."""
    text = spec("[{session: EXCLUSIVE}]", more="workers: any\nno global stall: true")
    found = certificate(text)
    assert found is not None and not found.covers_stall
    assert check(parse(text)).verdict.outcome is not Outcome.HOLDS


def test_pools_are_left_to_the_search() -> None:
    """Whoever waits for a pool waits for all who hold its units."""
    text = spec("[{pool: TAKE}, {pool: TAKE}]")
    assert certificate(text) is None
    assert check(parse(text)).verdict.violated == "no deadlock"


def test_a_role_of_one_worker_does_not_wait_for_itself() -> None:
    """The certificate says that it needs this; with two leaders there is a deadlock."""
    roles = "roles: {{leader: {{count: {}, runs: [t0]}}, other: {{runs: [t1]}}}}"
    upgrade = ("[{x: SHARED}, {x: EXCLUSIVE}]", f"[{X}]")
    alone = certificate(spec(*upgrade, more=roles.format(1)))
    assert alone is not None and alone.single_roles == ("leader",)
    assert check(parse(spec(*upgrade, more=roles.format(1)))).verdict.scope == "any number of workers, but 1 leader"
    assert certificate(spec(*upgrade, more=roles.format(2))) is None
    result = check(parse(spec(*upgrade, more=roles.format(2))))
    assert result.verdict.violated == "no deadlock"


def test_two_loops_over_different_sets_hold_as_declared() -> None:
    """Whether one order fits both is a matter of their elements; the certificate names the sets."""
    text = spec(f"[{loop(A)}]", f"[{loop(A, over='i: part')}]")
    found = certificate(text)
    assert found is not None and found.as_declared == ("part", "s")
    assert "but part and s, which must be as declared" in proved(found)[0]
    assert certificate(text.replace("part: [0, 1]", "part: [1, 0]")) is None


def test_a_large_model_is_proved_without_being_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 queues and stripes, 16/8/8 slots, 256 workers or any: one worker alone would have more than 50,000 places."""

    def refuse(*_: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(checker, "compile_program", refuse)
    queues = ",".join(f"q{number}" for number in range(64))
    sets = [f"queue={queues}", f"stripe={queues}", "ready_slot=16", "lease_slot=8", "claim_slot=8"]
    for workers in ("256", "any"):
        result = check(load(REPOSITORY / "specs/awa/storage.yaml"), parse_overrides(sets, [workers]))
        assert (result.verdict.outcome, result.verdict.scope) == (Outcome.HOLDS, "any number of workers")
        assert result.explorations == () and result.system is None
        assert "for sets of any size" in full(result, Page()).replace("\n ", "")
        assert json.loads(report([result]))["results"][0]["properties"][1]["holds"] is True


def test_what_is_too_large_to_search_is_undecided_but_for_the_deadlocks() -> None:
    """Formulas need a search; that there is no deadlock is known all the same, and said."""
    queues = ",".join(f"q{number}" for number in range(64))
    sets = [f"queue={queues}", f"stripe={queues}", "ready_slot=64", "lease_slot=64", "claim_slot=64"]
    result = check(load(REPOSITORY / "specs/awa/storage-authority.yaml"), parse_overrides(sets, ["2"]))
    assert (result.verdict.outcome, result.exit_code) == (Outcome.UNDECIDED, 3)
    assert "no deadlock is possible, but the rest can't be searched" in result.verdict.reason
    assert "is proved" in full(result, Page())


MEANINGLESS = {
    "an element that is not there": ("lock, per: [s]", "[{'r[c + 1]': EXCLUSIVE}]", "is not in set s"),
    "a savepoint set on one way only": (
        "lock, per: [s]",
        "[{either: [[{savepoint: p}], []]}, {rollback to: p}, {'r[c]': SHARED}]",
        "no savepoint 'p' is set on a way",
    ),
    "a session lock too deep": ("advisory, scope: session", "[{r: SHARED}, {r: SHARED}]", "more than 4 times"),
    "a condition that is none": ("lock, per: [s]", "[{if: c + 1, then: [{'r[c]': SHARED}]}]", "not true or false"),
}


@pytest.mark.parametrize("name", MEANINGLESS)
def test_a_step_without_meaning_is_found_though_it_is_proved(name: str) -> None:
    """The proof does not look at values; what has no meaning is an error, never a HOLDS."""
    kind, steps, said = MEANINGLESS[name]
    text = f"name: t\nsets: {{s: 2}}\nresources: {{r: {{kind: {kind}}}}}\n"
    text += f"transactions: {{t: {{choose: {{c: s}}, steps: {steps}}}}}\nworkers: any\n"
    assert certificate(text) is not None
    with pytest.raises(LockmodelError, match=said):
        check(parse(text))


def test_a_fixed_number_of_workers_is_searched_for_its_counts() -> None:
    """The counts of the published model come from the search, also where a proof would do."""
    result = check(load(REPOSITORY / "specs/awa/storage.yaml"))
    assert (result.explorations[0].states, result.verdict.scope) == (69_057, "any number of workers")


def test_a_circle_of_more_workers_than_there_are_is_no_proof() -> None:
    """Two workers can't deadlock in a ring of three, but this is not proved for any number."""
    result = check(parse(philosophers(3)), parse_overrides([], ["2"]))
    assert (result.verdict.outcome, result.verdict.scope, result.certificate) == (Outcome.HOLDS, "2 workers", None)


def test_some_of_many_workers_deadlock_without_a_search() -> None:
    """Eight workers have 40,817,423 states up to the depth where two of them can't go on."""
    result = check(load(REPOSITORY / "specs/striped-old-claim.yaml"), parse_overrides([], ["8"]))
    assert (result.verdict.outcome, result.explorations) == (Outcome.VIOLATED, ())
    assert "2 of the 8 workers" in by_circle(result)


def test_a_circle_of_more_workers_than_there_are_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the search may be: a ring of three is no deadlock of two, nor of three workers of whom one does something else."""
    monkeypatch.setattr(checker, "LONG_STATES", 0)
    result = check(parse(philosophers(3)), parse_overrides([], ["2"]))
    assert (result.verdict.outcome, len(result.explorations)) == (Outcome.HOLDS, 1)
    assert check(parse(philosophers(3)), parse_overrides([], ["3"])).explorations == ()
    roles = "roles: {left: {count: 1, runs: [p0, p1]}, right: {count: 2, runs: [p2]}}\n"
    divided = check(parse(philosophers(3).replace("workers: any\n", roles)))
    assert (divided.verdict.outcome, len(divided.explorations)) == (Outcome.HOLDS, 1)


def test_a_local_variable_does_not_see_the_others() -> None:
    """`z: m` is the element m, though a local variable is called so, too: no order of the locks."""
    text = (
        "name: t\nsets: {s: [m, n]}\nresources: {r: {kind: row, per: [s]}}\ntransactions:\n"
        "  x:\n    choose: {c: s}\n    let: {m: c, z: m}\n    steps: [{'r[c]': FOR UPDATE}, {'r[z]': FOR UPDATE}]\n"
        "  y: {steps: [{'r[m]': FOR UPDATE}, {'r[n]': FOR UPDATE}]}\n"
    )
    for workers in ("any", "2"):
        result = check(parse(f"{text}workers: {workers}\n"))
        assert (result.verdict.outcome, result.certificate) == (Outcome.VIOLATED, None)


THREE_AND_TWO = """
name: t
sets: {n: 12}
resources: {a: {kind: row}, b: {kind: row}, c: {kind: row}, d: {kind: row}, e: {kind: row}, pad: {kind: row, per: [n]}}
transactions:
  ab: {steps: [{a: FOR UPDATE}, {b: FOR UPDATE}]}
  bc: {steps: [{b: FOR UPDATE}, {c: FOR UPDATE}]}
  ca: {steps: [{c: FOR UPDATE}, {a: FOR UPDATE}]}
  de: {steps: [{for: {i: n}, do: [{"pad[i]": FOR SHARE}]}, {d: FOR UPDATE}, {e: FOR UPDATE}]}
  ed: {steps: [{e: FOR UPDATE}, {d: FOR UPDATE}]}
"""


@pytest.mark.parametrize("workers", ["3", "6"])
def test_the_deadlock_that_is_expected_is_searched_for(workers: str) -> None:
    """A circle of two needs no search, but a longer trace than the circle of three."""
    shape = "{deadlock: {between: [ab, bc, ca], states: 7}}"
    result = check(parse(f"{THREE_AND_TWO}expect: {shape}\nworkers: {workers}\n"))
    assert result.unmet is None and result.explorations
    other = check(parse(f"{THREE_AND_TWO}expect: {{deadlock: {{between: [de, ed]}}}}\nworkers: 6\n"))
    assert other.unmet is None and not other.explorations


def test_with_all_any_kind_may_be_the_expected_one() -> None:
    """The shortest is another; the report says how to compare with all."""
    spec_ = parse(f"{THREE_AND_TWO}expect: {{deadlock: {{between: [ab, bc, ca]}}}}\nworkers: any\n")
    assert "--all" in (check(spec_).unmet or "")
    assert check(spec_, every=True).unmet is None
    wrong = parse(f"{THREE_AND_TWO}expect: {{deadlock: {{between: [ab, ca]}}}}\nworkers: any\n")
    assert check(wrong, every=True).unmet is not None


def test_an_endless_search_is_not_begun_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers would be too many here: UNDECIDED at once, unless there is a limit that ends the search."""
    monkeypatch.setattr(checker, "ENDLESS_STATES", 40)
    asked = parse(spec(f"[{X}, {Y}]") + "never: {crowd: count(w.status == running) > 5}\n")
    result = check(asked)
    assert result.verdict.outcome is Outcome.UNDECIDED and len(result.explorations) == 1
    assert "holds for up to 2 workers (3 workers may have too many states: give a --timeout" in result.verdict.reason
    assert len(check(asked, limits=Limits(timeout_seconds=600)).explorations) == 3


def test_a_search_that_meets_its_limit_is_replaced_by_the_proof() -> None:
    """UNDECIDED would be wrong: the proof has decided."""
    result = check(load(REPOSITORY / "specs/striped.yaml"), parse_overrides([], ["5"]), Limits(max_states=100))
    assert result.verdict.outcome is Outcome.HOLDS
    assert not result.explorations[-1].complete


def philosophers(count: int) -> str:
    steps = ", ".join(
        f"p{n}: {{steps: [{{'a[{n}]': EXCLUSIVE}}, {{'a[{(n + 1) % count}]': EXCLUSIVE}}]}}" for n in range(count)
    )
    return f"name: t\nsets: {{s: {count}}}\nresources: {{a: {{kind: lock, per: [s]}}}}\ntransactions: {{{steps}}}\nworkers: any\n"


@pytest.mark.parametrize("count", [2, 3, 7, 30])
def test_the_canonical_trace_has_only_the_members(count: int) -> None:
    """As many workers as the circle needs, which run one after another; no search could try thirty."""
    result = check(parse(philosophers(count)))
    assert result.trace is not None and result.view is not None and result.explorations == ()
    assert len(result.view.cycle) == len(result.trace.crew) == count
    assert [action.worker for action in result.trace.actions] == [w for w in range(count) for _ in (0, 1)]
    assert len(result.trace) == 2 * count + 1


def test_a_circle_that_a_gate_closes_only_in_part_is_refuted() -> None:
    """Neighbours in the circle of three can stand side by side, the first and the last can't: no deadlock, and it is decided."""
    text = "name: t\nresources: {x: {kind: lock}, y: {kind: lock}, z: {kind: lock}, u: {kind: lock}, g: {kind: lock}}\ntransactions:\n"
    text += "  t0: {steps: [{g: EXCLUSIVE}, {x: EXCLUSIVE}, {y: EXCLUSIVE}]}\n  t1: {steps: [{y: EXCLUSIVE}, {z: EXCLUSIVE}]}\n"
    text += "  t2: {steps: [{g: EXCLUSIVE}, {z: EXCLUSIVE}, {u: EXCLUSIVE}]}\n  t3: {steps: [{u: EXCLUSIVE}, {x: EXCLUSIVE}]}\n"
    examined = examine(compile_spec(parse(text + "workers: any\n")))
    assert examined.certificate is not None and examined.certificate.refuted
    result = check(parse(text + "workers: any\n"))
    assert result.verdict.outcome is Outcome.HOLDS
    assert "g keeps t0 and t2 apart, who hold it in conflicting modes" in " ".join(full(result, Page()).split())
    assert check(parse(text + "workers: 4\n")).verdict.outcome is Outcome.HOLDS


def all_of(text: str, workers: str = "any") -> CheckResult:
    return check(parse(text), parse_overrides([], [workers]), every=True)


def test_all_deadlocks_are_grouped_by_transactions_and_resources() -> None:
    """Two ways round a pair of locks, and an upgrade: shortest circle first, each with its trace, which can be read back."""
    text = spec(f"[{X}, {Y}]", f"[{Y}, {X}]", "[{z: SHARED}, {z: EXCLUSIVE}]")
    for workers in ("any", "2", "3"):
        result = all_of(text, workers)
        assert result.deadlocks is not None and result.deadlocks.incomplete == ""
        groups = [(group.transactions, group.families, group.ways) for group in result.deadlocks.groups]
        assert groups == [(("t0", "t1"), ("x", "y"), 1), (("t2", "t2"), ("z",), 1)]
        text_report = report([result])
        for number, group in enumerate(result.deadlocks.groups, start=1):
            assert read_trace(text_report, deadlock=number).trace == group.trace
        with pytest.raises(LockmodelError, match="it has no deadlock 3; it has 2"):
            read_trace(text_report, deadlock=3)
    page = full(result, Page())
    assert "2 kinds of deadlock in all." in page and "2. between 2 workers in t2, on z (1 way; 5 states)" in page


def test_a_circle_that_contains_a_smaller_one_is_not_a_deadlock_of_its_own() -> None:
    """t2 waits for t0 and for t1, and t1 waits for t2: t0, which waits for t1, is not needed."""
    shared = "{gate: SHARED}"
    result = all_of(spec(f"[{shared}, {X}, {Y}]", f"[{shared}, {Y}, {Z}]", f"[{Z}, {GATE}]"))
    assert result.deadlocks is not None
    assert [group.transactions for group in result.deadlocks.groups] == [("t1", "t2")]


def test_all_deadlocks_of_a_proved_spec_are_none() -> None:
    """Nothing has to be searched."""
    result = all_of(spec(f"[{X}, {Y}]"))
    assert result.deadlocks is not None and (result.deadlocks.groups, result.deadlocks.incomplete) == ((), "")
    assert "kind" not in full(result, Page())


def test_all_deadlocks_where_circles_do_not_decide_are_searched() -> None:
    """Pools, try-locks and variables: all states with the workers that there are."""
    pool = all_of(spec("[{pool: TAKE}, {pool: TAKE}]", f"[{X}, {Y}]", f"[{Y}, {X}]"), "2")
    assert pool.deadlocks is not None and pool.deadlocks.incomplete == ""
    assert [group.families for group in pool.deadlocks.groups] == [("pool",), ("x", "y")]
    open_number = all_of(spec(f"[{{gate: EXCLUSIVE TRY}}, {X}, {Y}]", f"[{Y}, {X}]"))
    assert open_number.deadlocks is not None and len(open_number.deadlocks.groups) >= 1
    assert open_number.deadlocks.incomplete == "deadlocks of more than 3 workers were not searched for"


def test_a_deadlock_of_more_workers_than_are_searched_is_found() -> None:
    """Six philosophers, with a try-lock beside: a search of 2 to 4 workers finds nothing, the circle does."""
    text = philosophers(6).replace("'a[0]': EXCLUSIVE}, {'a[1]'", "'a[0]': EXCLUSIVE}, {g: EXCLUSIVE TRY}, {'a[1]'")
    result = check(parse(text.replace("resources: {", "resources: {g: {kind: lock}, ")))
    assert result.verdict.violated == "no deadlock" and len(result.explorations) == 3
    assert result.view is not None and len(result.view.cycle) == 6
    assert "which the search did not come to" in full(result, Page())


def test_a_bound_that_is_met_is_said() -> None:
    """Too many circles to look at all: UNDECIDED with the reason, not silence."""
    from lockmodel.prover.circles import Circles
    from lockmodel.prover.places import Places

    system = compile_spec(parse(philosophers(12)))
    circles = Circles(Places(system), max_steps=5)
    assert list(circles.by_length()) == []
    assert circles.bounded


def test_a_certificate_reads_the_same_in_every_process() -> None:
    """No order of a set shows: Python's hashes of texts differ from process to process."""
    code = (
        "import sys, lockmodel, json; from lockmodel.report.json import report; "
        "r = lockmodel.check(lockmodel.load('specs/awa/storage-authority.yaml'), engine=None); "
        "print(json.loads(report([r]))['results'][0]['certificate'])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(said) == 1
