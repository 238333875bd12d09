"""The compiled loops of the dense engine. Everything about a row stands in arrays; see `dense` for what they mean.

A row is a row number in mixed radix: the valuation first, then the place of each worker but the last; its states are words of 64 places of the
last worker. A level is made by *pulling*: each row collects what leads into it, so that threads never write to the same row.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

CHAIN, GATHER, SCATTER = 0, 1, 2
MEANINGLESS = -2
"""In place of a count: a formula has no meaning in some state."""


@numba.njit(nogil=True, cache=True)
def _ones(word: Any) -> Any:
    """How many bits of a word are set."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def pull(
    begin: int, end: int, level: Any, active: Any, seen: Any, following: Any, following_active: Any, t: Any, w: Any
) -> tuple[int, int, int]:
    """Make rows begin … end - 1 of the next level from `level`.

    Returns the transitions taken into these rows, the new states in them, and the new states that violate a property (or MEANINGLESS).
    """
    outer = t.radix.shape[0]
    count = level.shape[1]
    place = np.zeros(outer, np.int64)
    found = np.zeros(count, np.uint64)
    wait = np.zeros(count, np.uint64)
    bad = np.zeros(count, np.uint64)
    transitions = states = violations = 0
    for row in range(begin, end):
        rest = row
        for i in range(outer - 1, -1, -1):
            place[i] = rest % t.radix[i]
            rest //= t.radix[i]
        valuation = rest
        any_found = False
        for k in range(count):
            found[k] = 0
        # What the other workers do to come here.
        for i in range(outer):
            here = t.first[i] + place[i]
            for e in range(t.into_start[here], t.into_start[here + 1]):
                edge = t.into[e]
                blocked = 0
                known = False
                moved = row + (t.source[edge] - place[i]) * t.stride[i]
                for b in range(
                    t.before_start[t.update[edge], valuation], t.before_start[t.update[edge], valuation + 1]
                ):
                    origin = t.before[b]
                    source = moved + (origin - valuation) * t.stride_of_valuation
                    if not active[source] or not t.allowed[t.guard[edge], origin]:
                        continue
                    if not known:
                        known = True
                        for j in range(outer):
                            if j != i and t.conflict[t.wanted[edge], t.first[j] + place[j]]:
                                blocked = 1
                    if blocked and not t.refuses[edge]:
                        continue
                    for k in range(count):
                        word = level[source, k]
                        if t.refuses[edge]:
                            if not blocked:
                                word &= t.blocking[t.wanted[edge], k]
                        else:
                            word &= ~t.blocking[t.wanted[edge], k]
                        if word:
                            transitions += _ones(word)
                            found[k] |= word
                            any_found = True
        # What the last worker does.
        for m in range(t.shape.shape[0]):
            ready = False
            for b in range(
                t.before_start[t.move_update[m], valuation], t.before_start[t.move_update[m], valuation + 1]
            ):
                origin = t.before[b]
                source = row + (origin - valuation) * t.stride_of_valuation
                if not active[source]:
                    continue
                if not ready:
                    ready = True
                    for k in range(count):
                        wait[k] = 0
                    for i in range(outer):
                        h = t.holding[t.first[i] + place[i]]
                        if h:
                            for k in range(count):
                                wait[k] |= t.blocked[h, m, k]
                if t.shape[m] == SCATTER:
                    anchor = t.anchor[m]
                    if not level[source, anchor >> 6] >> np.uint64(anchor & 63) & np.uint64(1):
                        continue
                    for k in range(count):
                        word = t.move_allowed[m, origin, k] & (wait[k] if t.move_refuses[m] else ~wait[k])
                        if word:
                            transitions += _ones(word)
                            found[k] |= word
                            any_found = True
                    continue
                carry = np.uint64(0)
                for k in range(count):
                    word = level[source, k] & t.move_allowed[m, origin, k]
                    word &= wait[k] if t.move_refuses[m] else ~wait[k]
                    if t.shape[m] == CHAIN:
                        if word or carry:
                            transitions += _ones(word)
                            found[k] |= (word << np.uint64(1)) | carry
                            carry = word >> np.uint64(63)
                            any_found = True
                    elif word:
                        transitions += _ones(word)
                        found[t.anchor[m] >> 6] |= np.uint64(1) << np.uint64(t.anchor[m] & 63)
                        any_found = True
        following_active[row] = 0
        if not any_found:
            continue
        fresh = 0
        for k in range(count):
            word = found[k] & ~seen[row, k]
            following[row, k] = word
            if word:
                seen[row, k] |= word
                fresh += _ones(word)
        if fresh:
            following_active[row] = 1
            states += fresh
            if violations != MEANINGLESS:
                judged = violating(row, following, bad, place, valuation, t, w)
                violations = MEANINGLESS if judged == MEANINGLESS else violations + judged
    return transitions, states, violations


@numba.njit(nogil=True, cache=True)
def violating(row: int, level: Any, bad: Any, place: Any, valuation: int, t: Any, w: Any) -> int:
    """Put those states of `row` that violate a property into `bad`; returns how many, or MEANINGLESS."""
    outer = t.radix.shape[0]
    count = level.shape[1]
    for k in range(count):
        bad[k] = 0
    # Who waits for whom among the others, and on from there.
    reach = np.zeros(outer, np.uint64)
    for i in range(outer):
        wanted = w.waits[t.first[i] + place[i]]
        if wanted >= 0:
            for j in range(outer):
                if j != i and t.conflict[wanted, t.first[j] + place[j]]:
                    reach[i] |= np.uint64(1) << np.uint64(j)
    waits_now = reach.copy()
    for j in range(outer):
        for i in range(outer):
            if reach[i] >> np.uint64(j) & np.uint64(1):
                reach[i] |= reach[j]
    for i in range(outer):
        if reach[i] >> np.uint64(i) & np.uint64(1):
            for k in range(count):
                bad[k] = ~np.uint64(0)
    for i in range(outer):
        h = t.holding[t.first[i] + place[i]]
        if h == 0:
            continue
        for j in range(outer):
            if j != i and not reach[i] >> np.uint64(j) & np.uint64(1):
                continue
            wanted = w.waits[t.first[j] + place[j]]
            if wanted >= 0:
                for k in range(count):
                    bad[k] |= w.waiting_for[h, k] & t.blocking[wanted, k]
    if w.no_stall:
        some = False
        for i in range(outer):
            some = some or w.running[t.first[i] + place[i]]
        for k in range(count):
            waiting = np.uint64(0)
            stalled = ~np.uint64(0)
            for i in range(outer):
                here = t.first[i] + place[i]
                h = t.holding[here]
                if h:
                    waiting |= w.waiting_for[h, k]
                if w.running[here] and not waits_now[i]:
                    stalled &= t.blocking[w.waits[here], k] if w.waits[here] >= 0 else np.uint64(0)
            stalled &= waiting | ~w.last_running[k]
            if not some:
                stalled &= w.last_running[k]
            bad[k] |= stalled
    for f in range(w.adds.shape[0]):
        base = 0
        for i in range(outer):
            more = w.adds[f, w.role[i], t.first[i] + place[i], valuation, 0]
            if more < 0:
                return MEANINGLESS
            base += more
        for k in range(count):
            word = level[row, k] & ~bad[k]
            bit = 0
            while word:
                while not word & np.uint64(1):
                    word >>= np.uint64(1)
                    bit += 1
                more = w.adds[f, w.role[outer], t.first[outer] + k * 64 + bit, valuation, 0]
                judged = 2 if more < 0 else w.judged[f, valuation, base + more]
                if judged == 2:
                    return MEANINGLESS
                if judged:
                    bad[k] |= np.uint64(1) << np.uint64(bit)
                word >>= np.uint64(1)
                bit += 1
    total = 0
    for k in range(count):
        bad[k] &= level[row, k]
        total += _ones(bad[k])
    return total
