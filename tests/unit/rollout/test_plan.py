"""The order of a rollout."""

import pytest

from bitrix_cdn.rollout.plan import batches

GROUPS = {
    "bitrix": ("shop",),
    "cdn": ("cdn",),
    "edge": ("edge1", "edge2", "edge3"),
    "balancer": ("front",),
    "monitoring": ("cdn",),
}


def test_edges_come_before_what_they_fetch_from_and_the_balancer_last() -> None:
    assert batches(GROUPS) == [("edge1",), ("edge2",), ("edge3",), ("cdn",), ("shop",), ("front",)]


def test_only_edges_are_changed_together() -> None:
    assert batches(GROUPS, size=2) == [("edge1", "edge2"), ("edge3",), ("cdn",), ("shop",), ("front",)]
    assert batches(GROUPS, size=9) == [("edge1", "edge2", "edge3"), ("cdn",), ("shop",), ("front",)]


@pytest.mark.parametrize("canary", ["edge2", "cdn", "front"])
def test_a_canary_is_first_alone_and_no_second_time(canary: str) -> None:
    order = batches(GROUPS, size=2, canary=canary)
    assert order[0] == (canary,)
    assert sorted(name for batch in order for name in batch) == sorted(
        ["shop", "cdn", "edge1", "edge2", "edge3", "front"]
    )


def test_a_deployment_of_two_hosts_has_an_order_as_well() -> None:
    assert batches({"bitrix": ("shop",), "cdn": ("cdn",), "monitoring": ("shop",)}) == [("cdn",), ("shop",)]


def test_a_balancer_that_watches_the_others_is_still_last() -> None:
    groups = {**GROUPS, "monitoring": ("front",)}
    assert batches(groups)[-1] == ("front",)


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="edge9: no such host; there are shop, cdn, edge1"):
        batches(GROUPS, canary="edge9")
    with pytest.raises(ValueError, match="1 or more"):
        batches(GROUPS, size=0)
