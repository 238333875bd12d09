"""What can be said of a queue without a server: its settings, its names, its jobs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from lockmodel.errors import LockmodelError
from lockmodel.queue import (
    ClaimStrategy,
    Job,
    JobError,
    QueueError,
    Settings,
    SettingsError,
    StripedQueue,
    choose_stripe,
    logical_name,
    physical_name,
)


def test_the_defaults_are_those_of_the_real_queue() -> None:
    """One stripe, 16 / 8 / 8 slots, one transaction for each stripe."""
    settings = Settings()
    assert (settings.stripes, settings.queue_slots, settings.lease_slots, settings.claim_slots) == (1, 16, 8, 8)
    assert settings.claim_strategy is ClaimStrategy.PER_STRIPE
    assert Settings(claim_strategy="all_stripes").claim_strategy is ClaimStrategy.ALL_STRIPES  # type: ignore[arg-type]


WRONG: list[tuple[str, Any, str]] = [
    *(("stripes", value, "stripes must be a whole number of at least 1") for value in (0, -1, True, 2.0, "2", None)),
    ("queue_slots", 3, "queue_slots must be a whole number of at least 4, not 3 (int)"),
    ("lease_slots", 1, "lease_slots must be a whole number of at least 2, not 1 (int)"),
    ("claim_slots", 1, "claim_slots must be a whole number of at least 2, not 1 (int)"),
    ("stripes", 2**40, "stripes must be a whole number of at least 1"),
    ("enqueue_batch_max", 0, "enqueue_batch_max must be a whole number of at least 1"),
    ("claim_batch", "many", "claim_batch must be a whole number of at least 1, not 'many'"),
    ("attempts_max", 0, "attempts_max must be a whole number of at least 1"),
    ("heartbeat_timeout_s", 0, "heartbeat_timeout_s must be a number of seconds above 0"),
    ("heartbeat_timeout_s", None, "heartbeat_timeout_s must be a number of seconds above 0"),
    ("heartbeat_timeout_s", float("nan"), "heartbeat_timeout_s must be a number of seconds above 0"),
    ("deadline_s", -1, "deadline_s must be a number of seconds above 0"),
    ("deadline_s", True, "deadline_s must be a number of seconds above 0"),
    ("rescue_delay_s", float("inf"), "rescue_delay_s must be a number of seconds of at least 0"),
    ("rescue_delay_s", "1 s\nor so", "rescue_delay_s must be a number of seconds of at least 0"),
    ("claim_strategy", "both", "claim_strategy must be 'per_stripe' or 'all_stripes', not 'both'"),
    ("claim_strategy", 1, "claim_strategy must be 'per_stripe' or 'all_stripes', not 1 (int)"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_wrong_setting_is_refused_in_one_line(name: str, value: Any, message: str) -> None:
    """The line says which, what would be right and what there was; it is a ValueError and lockmodel's own."""
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: value})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, LockmodelError)


def test_settings_can_be_varied_and_are_checked_again() -> None:
    """dataclasses.replace goes through the same checks."""
    assert dataclasses.replace(Settings(), stripes=5).stripes == 5
    with pytest.raises(SettingsError):
        dataclasses.replace(Settings(), stripes=0)


def test_one_stripe_is_the_queue_itself() -> None:
    """`name` with N = 1, `name#0` … `name#N-1` otherwise, and back."""
    assert physical_name("mail", 0, 1) == "mail"
    assert [physical_name("mail", stripe, 3) for stripe in range(3)] == ["mail#0", "mail#1", "mail#2"]
    assert {logical_name(name) for name in ("mail", "mail#0", "mail#12")} == {"mail"}
    assert logical_name("a#b") == "a#b"


def test_the_stripe_of_a_key_never_changes() -> None:
    """Pinned: another hash would send the jobs of a key to another stripe than those that wait already."""
    keys = [b"", b"a", b"customer 17", "Grüße".encode()]
    assert [choose_stripe(0, key, 5) for key in keys] == [1, 3, 1, 3]
    code = "from lockmodel.queue import choose_stripe; print(choose_stripe(9, b'customer 17', 1000))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


def test_jobs_without_a_key_take_turns() -> None:
    """Their index in the batch decides."""
    assert [choose_stripe(index, None, 3) for index in range(5)] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queue": ""}, "a queue's name must be a string with something in it"),
        ({"queue": None}, "a queue's name must be a string with something in it"),
        ({"queue": "mail#3"}, "queue 'mail#3' is called like a stripe"),
        ({"queue": "a\0b"}, "Postgres has no NUL"),
        ({"queue": "\udc80"}, "Postgres has no NUL and no surrogates"),
        ({"queue": "mail", "priority": 2**15}, "priority must be a whole number from -32768 to 32767"),
        ({"queue": "mail", "priority": True}, "priority must be a whole number"),
        ({"queue": "mail", "priority": "1"}, "priority must be a whole number"),
        ({"queue": "mail", "unique_key": 7}, "unique_key must be a string or bytes, not int"),
        ({"queue": "mail", "payload": {1, 2}}, "the payload is no JSON"),
        ({"queue": "mail", "payload": float("nan")}, "the payload is no JSON"),
    ],
)
def test_a_job_that_cannot_be_stored_is_refused_when_it_is_made(arguments: dict[str, Any], message: str) -> None:
    """Not when its whole batch has been sent."""
    with pytest.raises(JobError) as caught:
        Job(**arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, QueueError) and isinstance(caught.value, ValueError)


def test_a_job_holds_what_its_payload_was() -> None:
    """A later change of the payload is not enqueued."""
    payload = {"to": ["a"]}
    job = Job(queue="mail", payload=payload)
    payload["to"].append("b")
    assert job.payload_text == '{"to":["a"]}'


@pytest.mark.parametrize("schema", ["", None, "x" * 64, "ü" * 32, "a\0b", "pg_mine", "information_schema", "\ud800"])
def test_a_schema_that_cannot_be_is_refused(schema: Any) -> None:
    """Before any connection is asked for."""
    with pytest.raises(SettingsError):
        StripedQueue(lambda: pytest.fail("asked for a connection"), schema=schema)
