"""Why nobody can go on in the last state of a trace: who holds what, who waits for whom, and what would end it.

Plain sentences, no layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lockmodel.explanation import Ends, Lock, StallView, TraceView, WorkerView
from lockmodel.report.grammar import SHOWN, listed, plural
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, Status, System


def why(system: System, view: TraceView, violated: str) -> str | None:
    """Why the workers in the last state of `view` don't go on; None if a formula is violated, and they may."""
    if violated == NO_DEADLOCK:
        return cycle_sentences(system, view)
    if violated == NO_GLOBAL_STALL:
        return stall_sentences(system, view)
    return queue_sentences(system, view) if violated == NO_STALL else None


def members(system: System, view: TraceView) -> tuple[int, ...]:
    """The workers of the deadlock: those of the cycle, and where it waits for a pool all who hold its units for ever."""
    found = list(view.cycle)
    for worker in found:
        wants = view.final[worker].wants
        if wants and _capacity(system, wants):
            stuck = [b.worker for b in view.final[worker].blockers if view.final[b.worker].stuck]
            found.extend(other for other in stuck if other not in found)
    return tuple(found)


def cycle_sentences(system: System, view: TraceView) -> str:
    """Who holds what and waits for whom, round the cycle."""
    workers = [view.final[worker] for worker in members(system, view)]
    if not workers:
        return ""
    pools = [worker for worker in workers if worker.wants and _capacity(system, worker.wants)]
    lines = [_pool_members(system, view, workers, pools)] if pools else [_round(workers)]
    # Who has a pool's units is said once, whoever waits for it.
    lines += [_shares(system, view, one) for one in {w.wants.resource: w for w in pools if w.wants}.values()]
    ends = {1: "It can never go on.", 2: "Neither can go on."}
    return " ".join([*lines, ends.get(len(workers), f"None of the {len(workers)} can go on.")])


def _pool_members(system: System, view: TraceView, workers: Sequence[WorkerView], pools: Sequence[WorkerView]) -> str:
    """What each waits for, those who hold a pool's units left to `_shares`."""
    said = [f"waits for {_wanted(system, w)}" if w in pools else waits(system, view, w) for w in workers[:SHOWN]]
    clauses = [f"{_who(worker)} {what}" for worker, what in zip(workers, said, strict=False)]
    if len(workers) > SHOWN:
        clauses.append(f"{len(workers) - SHOWN} more wait likewise")
    return "; ".join(clauses) + "."


def _round(workers: Sequence[WorkerView]) -> str:
    """Each worker waits for the next, the last for the first."""
    if len(workers) > SHOWN:
        chain = " → ".join([*map(_who, workers), workers[0].name])
        return f"Each waits for the next: {chain}."
    wants = [worker.wants for worker in workers if worker.wants]
    # `kept[i]`: what worker i + 1 has that worker i waits for.
    kept = [
        next(blocker.locks[0] for blocker in worker.blockers if blocker.worker == following.worker)
        for worker, following in zip(workers, [*workers[1:], workers[0]], strict=True)
    ]
    # Where all modes are the same one, saying it again and again hides the rest.
    modes = len({lock.mode for lock in (*wants, *kept)}) > 1
    clauses = []
    for index, worker in enumerate(workers):
        wanted = str(wants[index]) if modes else wants[index].resource
        mode = f" {kept[index].mode}" if modes else ""
        if index == 0:
            first = str(kept[-1]) if modes else kept[-1].resource
            clause = f"{_who(worker)} holds {first} and waits for {wanted}"
        else:
            clause = f"{worker.name} waits for {wanted}"
        if index < len(workers) - 1:
            clause += f", which {_who(workers[index + 1])} holds{mode}"
        clauses.append(clause)
    return "; ".join(clauses) + "."


def _shares(system: System, view: TraceView, worker: WorkerView) -> str:
    """Who has the units of the pool that `worker` waits for: `Of 2 units of conn, worker 1 has 1 and worker 2 has 1.`"""
    assert worker.wants is not None
    had = [f"{view.workers[blocker.worker]} has {len(blocker.locks)}" for blocker in worker.blockers]
    units = plural(_capacity(system, worker.wants) or 0, "unit")
    return f"Of {units} of {worker.wants.resource}, {listed(had)}."


def queue_claim(view: TraceView, stall: StallView) -> str:
    """`of query behind migrate`."""
    return f"of {listed(stall.transactions)} behind {view.final[stall.waiter].transaction}, on {stall.resource}"


def queue_sentences(system: System, view: TraceView) -> str:
    """Who is held up behind whom, how many can be, and what ends it."""
    stall = view.stall
    assert stall is not None
    waiter = view.final[stall.waiter]
    assert waiter.wants is not None
    lines = [f"{_who(waiter)} {waits(system, view, waiter)}."]
    for worker in (view.final[number] for number in stall.delayed):
        assert worker.wants is not None
        lines.append(
            f"{_who(worker)} asks for {worker.wants}, which nobody's locks forbid, but comes later and waits behind {waiter.name}."
        )
    if stall.convoy:
        number = "any number of workers" if stall.most is None else f"up to {plural(stall.most, 'worker')}"
        lines.append(f"{number[0].upper()}{number[1:]} in {listed(stall.transactions)} can pile up there.")
    holders = listed(_who(view.final[worker]) for worker in stall.holders)
    if stall.ends is Ends.REARRANGED:
        lines.append("After deadlock_timeout Postgres lets past who is held up: the holder waits for one of them.")
    else:
        verb = "ends" if len(stall.holders) == 1 else "end"
        lines.append(
            f"It ends when {holders} {verb}, or with a lock_timeout in {waiter.transaction}; Postgres reports nothing."
        )
    return " ".join(lines)


def stall_sentences(system: System, view: TraceView) -> str:
    """Who waits for whom where every running worker waits."""
    waiting = [worker for worker in view.final if worker.wants]
    clauses = [f"{_who(worker)} {waits(system, view, worker)}" for worker in waiting]
    rest = sorted({b.worker for w in waiting for b in w.blockers if view.final[b.worker].status is not Status.RUNNING})
    notes = [f"{view.workers[worker]} is {view.final[worker].status} and keeps its lock" for worker in rest]
    return f"Every running worker waits: {'; '.join([*clauses, *notes])}."


# One worker


def holdings(system: System, worker: WorkerView) -> str:
    """What `worker` holds: `lane[0] FOR UPDATE, 2 units of connections`."""
    words = []
    for lock, count in Counter(worker.holds).items():
        words.append(f"{_units(count)} of {lock.resource}" if _capacity(system, lock) else str(lock))
    return ", ".join(words)


def _units(count: int) -> str:
    return "a unit" if count == 1 else f"{count} units"


def waits(system: System, view: TraceView, worker: WorkerView) -> str:
    """`waits for lane[1] FOR UPDATE, held by worker 2`; empty if `worker` does not wait."""
    if worker.wants is None:
        return ""
    if worker.behind:
        ahead = [f"{view.workers[one.worker]} ({one.locks[0].mode})" for one in worker.behind]
        return f"waits for {worker.wants}, behind {listed(ahead)}"
    holders = []
    for blocker in worker.blockers:
        modes = listed(dict.fromkeys(lock.mode for lock in blocker.locks if lock.mode != worker.wants.mode))
        holders.append(view.workers[blocker.worker] + (f" ({modes})" if modes else ""))
    return f"waits for {_wanted(system, worker)}, held by {listed(holders)}"


def _wanted(system: System, worker: WorkerView) -> str:
    """`lane[1] FOR UPDATE`, or of a pool `one more unit of connections`."""
    assert worker.wants is not None
    if not _capacity(system, worker.wants):
        return str(worker.wants)
    return f"{'one more unit' if worker.wants in worker.holds else 'a unit'} of {worker.wants.resource}"


def _capacity(system: System, lock: Lock) -> int | None:
    return next((resource.capacity for resource in system.resources if resource.name == lock.resource), None)


def _who(worker: WorkerView) -> str:
    return f"{worker.name} ({worker.transaction or worker.status})"
