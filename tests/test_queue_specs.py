"""The specs of the real queue: each says what the queue really locks, and each verdict is as expected."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from leftovers import remains

from lockmodel.checker import check
from lockmodel.parser import load, parse
from lockmodel.replay.conformance import conform

SPECS = sorted((Path(__file__).parent.parent / "specs").rglob("*.yaml"))
QUEUE = [path for path in SPECS if path.parent.name == "queue"]


@pytest.mark.parametrize(
    "path", [path for path in SPECS if path.stem != "storage-authority"], ids=lambda path: path.stem
)
def test_a_shipped_spec_comes_out_as_it_expects(path: Path) -> None:
    """The authority model, the largest, is checked in test_awa_counts."""
    result = check(load(path))
    assert result.exit_code == 0, (result.verdict, result.unmet)


@pytest.mark.postgres
@pytest.mark.parametrize("path", QUEUE, ids=lambda path: path.stem)
def test_a_spec_of_the_queue_conforms_to_its_code(path: Path, dsn: str) -> None:
    """Every operation takes just the planned locks, in the planned order: on PostgreSQL 15 as on 18."""
    found, _ = asyncio.run(conform(load(path), dsn))
    for one in found:
        lines = [line for comparison in one.comparisons for line in comparison.lines]
        assert one.conforms, (one.transaction, [line for line in lines if line.relation != "equal"])
    assert remains(dsn) == []


@pytest.mark.postgres
def test_the_queue_with_the_other_claim_drifts_from_its_spec(dsn: str) -> None:
    """The comparison is not vacuous: the spec of one claim strategy does not conform to the other."""
    text = next(path for path in QUEUE if path.stem == "all-stripes").read_text()
    found, _ = asyncio.run(conform(parse(text.replace("claim: all_stripes", "claim: per_stripe")), dsn))
    assert [one.transaction for one in found if not one.conforms] == ["claim", "claim"]


@pytest.mark.parametrize("stripes", [3, 4])
def test_the_proof_of_the_queue_holds_for_more_stripes(stripes: int) -> None:
    """By the certificate, whatever the number of workers; the search stops early."""
    from lockmodel.exploration import Limits
    from lockmodel.overrides import parse_overrides

    path = next(path for path in QUEUE if path.stem == "striped")
    result = check(load(path), parse_overrides([f"stripe={stripes}"], []), Limits(max_states=5_000))
    assert result.certificate is not None
    assert result.exit_code == 0
