"""How a verdict is known: what was searched, how a circle was found, what a proof rests on, and how to decide what is left open.

Plain sentences, no layout.
"""

from __future__ import annotations

from lockmodel.checker import how_many
from lockmodel.exploration import INTERRUPTED, Exploration
from lockmodel.prover import Certificate, Harmless, OutOfOrder
from lockmodel.prover.order import Group, Order
from lockmodel.report.grammar import SHOWN, listed, plural, sentence
from lockmodel.semantics import Crew
from lockmodel.system import NO_DEADLOCK
from lockmodel.verdict import CheckResult, Outcome

_REASONS = 6
"""How many reasons a certificate gives in words."""


def searched(exploration: Exploration) -> str:
    """One search: with how many workers, what it saw, whether that is all."""
    counts = (
        f"{plural(exploration.states, 'state')}, {plural(exploration.transitions, 'transition')}, "
        f"depth {exploration.depth}, {exploration.seconds:.2f} s"
    )
    end = "complete" if exploration.complete else exploration.stopped
    engine = ", ".join([f"{exploration.engine} engine", *(f"reduced by {word}" for word in exploration.reductions)])
    note = f" {sentence(exploration.note)}" if exploration.note else ""
    return f"Searched {_crew(exploration.crew)}: {counts}; {end} ({engine}).{note}"


def _crew(workers: Crew) -> str:
    """`2 workers`; with a few roles, `3 workers (1 producer, 2 consumer)`."""
    roles = set(workers.roles)
    return plural(len(workers), "worker") + (f" ({how_many(workers)})" if 1 < len(roles) <= SHOWN else "")


def by_circle(result: CheckResult) -> str:
    """How a deadlock was found that no search came to; empty for what a search found, or nobody."""
    searched_ = any(exploration.violation for exploration in result.explorations)
    if searched_ or result.view is None or result.verdict.violated != NO_DEADLOCK:
        return ""
    if result.lifted is not None:
        sizes = listed(f"{name} of {size}" for name, size in result.lifted.sizes.items())
        return f"The spec is large: the deadlock was found with a smaller {sizes}, and then followed step by step in the whole."
    if result.explorations:
        return "Found as a circle of waits, which the search did not come to."
    circle = len(result.view.cycle)
    counts = [role.count for role in result.compiled.roles]
    fixed = 0 if None in counts else sum(count or 0 for count in counts)
    members = f"{circle} of the {fixed} workers" if fixed > circle else plural(circle, "worker")
    return f"Found without a search: the shortest circle of waits, with {members}, which run one after another."


def advice(result: CheckResult) -> str:
    """How to decide what is undecided; empty for what is decided."""
    if result.verdict.outcome is not Outcome.UNDECIDED:
        return ""
    if all(exploration.complete for exploration in result.explorations):
        return "With --workers N it is decided for N workers."
    interrupted = any(exploration.stopped == INTERRUPTED for exploration in result.explorations)
    return "" if interrupted else "With a larger --max-states, --timeout or --memory the search goes on."


# Proofs


def proved(certificate: Certificate, sets: bool = True) -> list[str]:
    """Why no number of workers can deadlock, one paragraph an entry; `sets`: whether the spec has any."""
    claim = f"No deadlock with {certificate.workers} is proved{_sizes(certificate) if sets else ''}:"
    if not certificate.requests:
        return [f"{claim} nobody ever waits for a lock while holding another one."]
    if certificate.order is None:
        situations = plural(certificate.requests, "way")
        said = (
            f"{claim} there is no single lock order, but of the {situations} to wait for a lock while holding others, "
            f"each can wait only for certain others ({plural(certificate.waits, 'pair')}), and never in a circle."
        )
        return [said, *_excluded(certificate)]
    if not certificate.order.groups:
        return [f"{claim} nobody waits for a lock of somebody who waits."]
    order = order_words(certificate.order)
    if certificate.relevant_only:
        order += " (requests that never wait, and locks that nobody waits for, are left out)"
    if not certificate.out_of_order:
        return [f"{claim} whoever waits for a lock holds only earlier ones in one order, {order}."]
    lines = [
        f"{claim} whoever waits for a lock holds only earlier ones in the order {order}, but for some waits that close no circle:"
    ]
    waits: dict[tuple[str, str], list[str]] = {}
    for one in certificate.out_of_order:
        verb = "waits" if len(one.transactions) == 1 else "wait"
        who = f"{listed(one.transactions)} {verb} with {one.held} held"
        waits.setdefault((_harmless(one), who), []).append(one.wanted)
    reasons: dict[str, list[str]] = {}
    for (why, who), wanted in waits.items():
        reasons.setdefault(why, []).append(f"{who} for {listed(wanted)}")
    shown = sorted(reasons.items(), key=lambda item: -len(item[1]))
    lines += [f"- {'; '.join(told)}: {why}." for why, told in shown[:_REASONS]]
    rest = sum(len(told) for _, told in shown[_REASONS:])
    return [*lines, *([f"- {rest} more, which the JSON report has."] if rest else [])]


def _excluded(certificate: Certificate) -> list[str]:
    """What keeps apart those who look as if they could wait in a circle, one reason a line."""
    if not certificate.refuted:
        return []
    lines = ["What looks like a circle can't come about:"]
    for one in certificate.refuted[:SHOWN]:
        who = listed(one.transactions) if len(one.transactions) > 1 else f"two workers in {one.transactions[0]}"
        lines.append(f"- {one.lock} keeps {who} apart, who hold it in conflicting modes ({plural(one.cases, 'case')}).")
    if len(certificate.refuted) > SHOWN:
        lines.append(f"- {plural(len(certificate.refuted) - SHOWN, 'more reason')}, which the JSON report has.")
    return lines


def _sizes(certificate: Certificate) -> str:
    """For which sizes of the sets."""
    if not certificate.every_size:
        return ", for the sets as they are"
    if certificate.as_declared:
        return f", for sets of any size but {listed(certificate.as_declared)}, which must be as declared"
    return ", for sets of any size"


def _harmless(one: OutOfOrder) -> str:
    """Why waiting out of order closes no circle."""
    match one.why:
        case Harmless.WAITERS_HOLD_NOTHING:
            return "whoever waits for the lock held holds nothing"
        case Harmless.BLOCKERS_GO_ON:
            return "whoever is in the way waits for nothing more"
        case Harmless.KEPT_APART:
            return f"whoever could be in the way is kept away by {listed(one.names)}, held by both"
        case Harmless.NO_WAY_BACK:
            verb = "waits" if len(one.names) == 1 else "wait"
            return f"only {listed(one.names)} {verb} for the lock held, and no chain of waits leads from there back"


def order_words(order: Order) -> str:
    """`lane (ascending) < ready < claims`; families that a loop takes in turn, `(for each slot, ascending: ready < done)`."""
    return " < ".join(map(_group_words, order.groups))


def _group_words(group: Group) -> str:
    if group.index is None:
        return listed(group.families)
    directions = {str(visit) for _, visit in group.index.visits}
    words = directions.pop() if len(directions) == 1 else ""
    if not group.index.visits:
        pairs = [f"{before.value} before {after.value}" for before, after in sorted(group.index.steps, key=str)]
        words = listed(pairs)
    words = words or "in one order"
    if len(group.families) > 1:
        inner = f": {order_words(group.inner)}" if group.inner is not None else f": {listed(group.families)}"
        return f"(by {group.index.of}, {words}{inner})"
    then = ""
    if group.inner is not None:
        indices = [f"{index.of} {next(iter({str(v) for _, v in index.visits}), '')}" for index in group.inner.indices()]
        then = f", then by {', '.join(text.strip() for text in indices)}"
    by = f"by {group.index.of} " if then else ""
    return f"{group.families[0]} ({by}{words}{then})"


def no_queue(requests: int) -> str:
    """That nobody is held up by a queue alone."""
    claim = "No stall with any number of workers is proved:"
    if not requests:
        return f"{claim} nobody stands in a lock's queue."
    ways = plural(requests, "way")
    return f"{claim} of the {ways} to stand in a lock's queue, none is behind one that waits without end and free of what that one waits for."
