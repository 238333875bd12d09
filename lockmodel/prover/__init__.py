"""Deadlocks of any number of workers: proofs that there is none, and the circles of waits that are ones.

`symbolic` proves on the program, for every size of its sets; `instances` on the compiled system, and finds what `canonical` makes
traces of. `certificate` is what both give.
"""

from __future__ import annotations

from lockmodel.prover.certificate import Certificate, Harmless, OutOfOrder
from lockmodel.prover.instances import Examination, examine, prove
from lockmodel.prover.size import most_places, most_states, surely_compiles
from lockmodel.prover.symbolic import prove_program

__all__ = [
    "Certificate",
    "Examination",
    "Harmless",
    "OutOfOrder",
    "examine",
    "most_places",
    "most_states",
    "prove",
    "prove_program",
    "surely_compiles",
]
