"""The compiled loops of the hashed engine: unpack a state, take every edge, pack the successors, look them up.

A state is `t.words` words of 64 bits. Worker i's place stands in word `word[i]` at bit `shift[i]`, the valuation after the workers. States are kept
in the order in which they are found, and an open-addressing table of their numbers (plus one; 0 is free) finds them again.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

MEANINGLESS = -2
"""In place of a count: a step or a formula has no meaning in some state."""


@numba.njit(nogil=True, cache=True)
def hash_of(state: Any) -> Any:
    """A hash of all words; its high bits choose the part, its low bits the slot."""
    mixed = np.uint64(0x9E3779B97F4A7C15)
    for k in range(state.shape[0]):
        mixed ^= state[k]
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(32)
    return mixed


@numba.njit(nogil=True, cache=True)
def unpack(state: Any, place: Any, t: Any) -> int:
    """Put the workers' places into `place`; returns the valuation."""
    workers = place.shape[0]
    for i in range(workers):
        place[i] = np.int64((state[t.word[i]] >> np.uint64(t.shift[i])) & np.uint64(t.mask[i]))
    return np.int64((state[t.word[workers]] >> np.uint64(t.shift[workers])) & np.uint64(t.mask[workers]))


@numba.njit(nogil=True, cache=True)
def pack(state: Any, place: Any, valuation: int, t: Any) -> None:
    """The reverse of `unpack`; with `t.symmetry`, identical workers are put in the order of their places first."""
    workers = place.shape[0]
    for k in range(state.shape[0]):
        state[k] = 0
    if t.symmetry:
        for i in range(1, workers):
            j = i
            while j > 0 and t.same[j] == t.same[j - 1] and place[j] < place[j - 1]:
                place[j], place[j - 1] = place[j - 1], place[j]
                j -= 1
    for i in range(workers):
        state[t.word[i]] |= np.uint64(place[i]) << np.uint64(t.shift[i])
    state[t.word[workers]] |= np.uint64(valuation) << np.uint64(t.shift[workers])


@numba.njit(nogil=True, cache=True)
def _blocked(worker: int, wanted: int, pool: int, place: Any, t: Any) -> bool:
    workers = place.shape[0]
    if wanted:
        for j in range(workers):
            if j != worker and t.conflict[wanted, t.first[j] + place[j]]:
                return True
    if pool >= 0:
        used = 0
        for j in range(workers):
            used += t.units[t.first[j] + place[j], pool]
        return used >= t.capacity[pool]
    return False


@numba.njit(nogil=True, cache=True)
def successors(state: Any, place: Any, moved: Any, made: Any, t: Any) -> int:
    """Put the successors of `state` into the rows of `made`; returns how many, or MEANINGLESS."""
    workers = place.shape[0]
    valuation = unpack(state, place, t)
    begin, end = 0, workers
    if t.reduce:
        for i in range(workers):
            if t.eager[t.first[i] + place[i]]:
                begin, end = i, i + 1
                break
    count = 0
    for i in range(begin, end):
        here = t.first[i] + place[i]
        for edge in range(t.edge_start[here], t.edge_start[here + 1]):
            allowed = t.allowed[t.guard[edge], valuation]
            if not allowed:
                continue
            blocked = _blocked(i, t.wanted[edge], t.pool[edge], place, t)
            if blocked != (t.refuses[edge] != 0):
                continue
            if allowed == 2:
                return MEANINGLESS
            for j in range(workers):
                moved[j] = place[j]
            moved[i] = t.target[edge]
            pack(made[count], moved, t.updated[t.update[edge], valuation], t)
            count += 1
    return count


@numba.njit(nogil=True, cache=True)
def expand(
    begin: int, end: int, states: Any, made: Any, parts: int, outgoing: Any, out_count: Any, t: Any
) -> tuple[int, int]:
    """Expand states begin … end - 1, as far as there is room, and sort their successors into one list for each part.

    Returns where it stopped and the transitions (or MEANINGLESS).
    """
    workers = t.first.shape[0]
    place = np.zeros(workers, np.int64)
    moved = np.zeros(workers, np.int64)
    room = outgoing.shape[1] - made.shape[0]
    transitions = 0
    for index in range(begin, end):
        for part in range(parts):
            if out_count[part] > room:
                return index, transitions
        count = successors(states[index], place, moved, made, t)
        if count == MEANINGLESS:
            return index, MEANINGLESS
        transitions += count
        for s in range(count):
            part = np.int64((hash_of(made[s]) >> np.uint64(40)) % np.uint64(parts))
            for k in range(made.shape[1]):
                outgoing[part, out_count[part], k] = made[s, k]
            out_count[part] += 1
    return end, transitions


@numba.njit(nogil=True, cache=True)
def find(state: Any, states: Any, table: Any) -> int:
    """The slot of `state` in the table, or of the free place where it belongs."""
    size = np.uint64(table.shape[0] - 1)
    slot = hash_of(state) & size
    while table[slot]:
        number = table[slot] - 1
        same = True
        for k in range(state.shape[0]):
            if states[number, k] != state[k]:
                same = False
                break
        if same:
            break
        slot = (slot + np.uint64(1)) & size
    return np.int64(slot)


@numba.njit(nogil=True, cache=True)
def insert(incoming: Any, count: int, states: Any, known: int, table: Any, judge: bool, t: Any) -> tuple[int, int]:
    """Add the new ones of `incoming`; returns how many states there are then, and the first that violates (-1: none; or MEANINGLESS)."""
    workers = t.first.shape[0]
    place = np.zeros(workers, np.int64)
    wait = np.zeros(workers, np.uint64)
    violated = -1
    for c in range(count):
        slot = find(incoming[c], states, table)
        if table[slot]:
            continue
        for k in range(incoming.shape[1]):
            states[known, k] = incoming[c, k]
        table[slot] = known + 1
        if judge and violated == -1:
            judged = broken(states[known], place, wait, t)
            if judged == MEANINGLESS:
                violated = MEANINGLESS
            elif judged:
                violated = known
        known += 1
    return known, violated


@numba.njit(nogil=True, cache=True)
def rehash(states: Any, known: int, table: Any) -> None:
    """Fill an empty table with the numbers of all states."""
    size = np.uint64(table.shape[0] - 1)
    for number in range(known):
        slot = hash_of(states[number]) & size
        while table[slot]:
            slot = (slot + np.uint64(1)) & size
        table[slot] = number + 1


@numba.njit(nogil=True, cache=True)
def broken(state: Any, place: Any, wait: Any, t: Any) -> int:
    """1 if the state violates a property, 0 if not, MEANINGLESS if a formula has no meaning."""
    workers = place.shape[0]
    valuation = unpack(state, place, t)
    stuck = np.uint64(0)
    for i in range(workers):
        here = t.first[i] + place[i]
        wait[i] = 0
        if t.waits[here] > 0:
            for j in range(workers):
                if j != i and t.conflict[t.waits[here], t.first[j] + place[j]]:
                    wait[i] |= np.uint64(1) << np.uint64(j)
        pool = t.waits_pool[here]
        if pool >= 0 and _blocked(i, 0, pool, place, t):
            for j in range(workers):
                if t.units[t.first[j] + place[j], pool]:
                    wait[i] |= np.uint64(1) << np.uint64(j)
        if wait[i]:
            stuck |= np.uint64(1) << np.uint64(i)
    waiting = stuck
    changed = stuck != 0
    while changed:
        changed = False
        for i in range(workers):
            if not (stuck >> np.uint64(i)) & np.uint64(1):
                continue
            pool = t.waits_pool[t.first[i] + place[i]]
            if pool >= 0:
                kept = 0
                for j in range(workers):
                    if (stuck >> np.uint64(j)) & np.uint64(1):
                        kept += t.units[t.first[j] + place[j], pool]
                hopeless = kept >= t.capacity[pool]
            else:
                hopeless = (wait[i] & stuck) != 0
            if not hopeless:
                stuck &= ~(np.uint64(1) << np.uint64(i))
                changed = True
    if stuck:
        return 1
    if t.no_stall:
        some = False
        all_wait = True
        for i in range(workers):
            if t.running[t.first[i] + place[i]]:
                some = True
                if not (waiting >> np.uint64(i)) & np.uint64(1):
                    all_wait = False
        if some and all_wait:
            return 1
    for f in range(t.adds.shape[0]):
        total = 0
        for i in range(workers):
            waits = np.int64((waiting >> np.uint64(i)) & np.uint64(1))
            more = t.adds[f, t.role[i], t.first[i] + place[i], valuation, waits]
            if more < 0:
                return MEANINGLESS
            total += more
        judged = t.judged[f, valuation, total]
        if judged == 2:
            return MEANINGLESS
        if judged:
            return 1
    return 0


@numba.njit(nogil=True, cache=True)
def judge_all(begin: int, end: int, states: Any, marked: Any, t: Any) -> int:
    """Mark the states begin … end - 1 that violate a property; returns how many."""
    workers = t.first.shape[0]
    place = np.zeros(workers, np.int64)
    wait = np.zeros(workers, np.uint64)
    count = 0
    for index in range(begin, end):
        if broken(states[index], place, wait, t) == 1:
            marked[index] = 1
            count += 1
    return count


@numba.njit(nogil=True, cache=True)
def mark_sources(
    begin: int, end: int, states: Any, marked: Any, part: int, part_states: Any, part_table: Any, part_marked: Any,
    low: int, high: int, made: Any, parts: int, t: Any
) -> None:  # fmt: skip
    """Mark the states begin … end - 1 that have a marked successor among states low … high - 1 of part `part`."""
    workers = t.first.shape[0]
    place = np.zeros(workers, np.int64)
    moved = np.zeros(workers, np.int64)
    for index in range(begin, end):
        if marked[index]:
            continue
        count = successors(states[index], place, moved, made, t)
        for s in range(count):
            if np.int64((hash_of(made[s]) >> np.uint64(40)) % np.uint64(parts)) != part:
                continue
            number = part_table[find(made[s], part_states, part_table)] - 1
            if low <= number < high and part_marked[number]:
                marked[index] = 1
                break
