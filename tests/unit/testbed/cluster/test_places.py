"""Two agents that say they are at the same place: one of them is let in."""

from testbed.cluster.places import Claim, Places

PLACE = "node01/0"


def held() -> Places:
    """A place that `a` holds. Its patience is 3 s."""
    made = Places(patience_s=3.0)
    assert made.claim(PLACE, "a", now_s=0.0, silent_s=0.0) is Claim.HOLDS
    return made


def test_who_comes_first_holds_a_place() -> None:
    places = held()
    assert places.claim(PLACE, "a", now_s=9.0, silent_s=9.0) is Claim.HOLDS
    assert (places.peer_at(PLACE), places.place_of("a")) == ("a", PLACE)
    assert (places.peer_at("node01/1"), places.place_of("b")) == (None, None)


def test_a_second_one_is_refused_once_the_first_is_known_to_live() -> None:
    places = held()
    assert places.claim(PLACE, "b", now_s=1.0, silent_s=0.5) is Claim.WAITS
    assert places.claim(PLACE, "b", now_s=4.0, silent_s=0.5) is Claim.WAITS
    assert places.claim(PLACE, "b", now_s=4.1, silent_s=0.6) is Claim.REFUSED
    assert places.peer_at(PLACE) == "a"


def test_a_second_one_takes_the_place_of_one_that_is_silent() -> None:
    places = held()
    assert places.claim(PLACE, "b", now_s=1.0, silent_s=1.0) is Claim.WAITS
    assert places.claim(PLACE, "b", now_s=3.1, silent_s=3.1) is Claim.REPLACES
    assert (places.peer_at(PLACE), places.place_of("a"), places.place_of("b")) == ("b", None, PLACE)


def test_a_second_one_takes_the_place_of_one_that_has_left() -> None:
    places = held()
    places.leave("a")
    assert places.place_of("a") is None
    assert places.claim(PLACE, "b", now_s=0.1, silent_s=0.0) is Claim.HOLDS


def test_a_third_one_is_refused_while_a_second_one_waits() -> None:
    places = held()
    assert places.claim(PLACE, "b", now_s=1.0, silent_s=0.5) is Claim.WAITS
    assert places.claim(PLACE, "c", now_s=1.5, silent_s=0.5) is Claim.REFUSED
    assert places.claim(PLACE, "c", now_s=7.1, silent_s=0.5) is Claim.WAITS


def test_a_peer_that_has_no_place_leaves_none() -> None:
    places = held()
    places.leave("b")
    assert places.peer_at(PLACE) == "a"
