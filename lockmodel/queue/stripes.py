"""Which physical queue a job of a logical queue goes to.

A logical queue `name` with N stripes is the physical queues `name#0` … `name#N-1`; with one stripe it is just `name`.
"""

from __future__ import annotations

import hashlib
import re

from lockmodel.errors import one_line, quote
from lockmodel.queue.errors import JobError, SettingsError

_STRIPE = re.compile(r"#[0-9]+\Z")


def check_queue_name(name: object, kind: type[SettingsError | JobError] = SettingsError) -> str:
    """`name` if a logical queue can be called so. Raises `kind`."""
    if not isinstance(name, str) or not name:
        raise kind(f"a queue's name must be a string with something in it, not {one_line(repr(name), 60)}")
    if _STRIPE.search(name):
        raise kind(f"queue {quote(name)} is called like a stripe: a logical queue's name can't end in # and a number")
    if "\0" in name or any("\ud800" <= char <= "\udfff" for char in name):
        raise kind(f"queue {one_line(repr(name), 60)}: Postgres has no NUL and no surrogates in text")
    return name


def physical_name(queue: str, stripe: int, stripes: int) -> str:
    """The physical queue that is number `stripe` of the `stripes` of `queue`."""
    return queue if stripes == 1 else f"{queue}#{stripe}"


def logical_name(physical: str) -> str:
    """The logical queue that `physical` is a stripe of."""
    return _STRIPE.sub("", physical)


def choose_stripe(index: int, key: bytes | None, stripes: int) -> int:
    """The stripe of a job that is number `index` of its batch: by the hash of its unique key, else by the index.

    The hash (the first 8 bytes of BLAKE2b) is the same in every process and on every machine, as Python's own is not.
    """
    number = index if key is None else int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())
    return number % stripes
