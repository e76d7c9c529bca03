"""A batch is at the layer of its slowest rank."""

from controller.pace import Pace


def test_a_batch_reaches_a_layer_with_its_last_rank() -> None:
    pace = Pace([0, 1])
    assert [pace.begins(0, 0), pace.begins(0, 1), pace.begins(1, 0)] == [None, None, 0]
    assert [pace.begins(1, 1), pace.begins(1, 2), pace.begins(0, 2)] == [1, None, 2]


def test_a_rank_alone_takes_its_batch_along() -> None:
    pace = Pace([7])
    assert [pace.begins(7, layer) for layer in (0, 1, 1, 2)] == [0, 1, None, 2]
    assert 7 in pace
    assert 0 not in pace
