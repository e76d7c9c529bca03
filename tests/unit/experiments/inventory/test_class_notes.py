"""What the doctor says of traffic classes that servers set from outside."""

import msgspec

from experiments.inventory.doctor_text import examined_text
from testbed.cluster.class_notes import class_notes
from testbed.cluster.clocks import Reading
from testbed.cluster.examination import Examined
from workers.agent_protocol import Here, Load, Machine
from workers.traffic_classes import Setting


def server(*classes: tuple[str, str], ucx: bool = False) -> Here:
    return Here(
        host="node1",
        local_rank=0,
        job="j",
        source="s",
        machine=Machine(
            mfs="0",
            torch="2",
            python="3",
            kernel="6",
            cores=2,
            gpus=0,
            mtus={},
            classes=tuple(Setting(name=name, value=value, where="environment") for name, value in classes),
            ucx=ucx,
        ),
        load=Load(idle=1.0, sent=0, again=0, received={}),
    )


def notes(*classes: tuple[str, str], ucx: bool = False) -> list[str]:
    return list(class_notes({"node1": server(*classes, ucx=ucx)}))


def test_servers_without_classes_have_no_notes() -> None:
    assert notes() == []


def test_a_class_that_would_beat_those_of_communicators_is_told() -> None:
    [told] = notes(("NCCL_IB_SL", "3"))
    assert told.startswith("node1: NCCL_IB_SL is 3 (environment); NCCL gives it to all its communicators")
    [told] = notes(("traffic_class of mlx5_0", "106"))
    assert "all RDMA of the device has it, whatever class they ask for" in told


def test_the_default_of_ucx_differs_from_that_of_nccl() -> None:
    [told] = notes(ucx=True)
    assert told.startswith("node1: UCX sends with class 106, its default on RoCE v2, and NCCL with 0:")
    [told] = notes(("UCX_IB_TRAFFIC_CLASS", "auto"), ucx=True)
    assert "106, its default on RoCE v2 (UCX_IB_TRAFFIC_CLASS, environment), and NCCL with 0:" in told


def test_one_class_for_both_splits_nothing() -> None:
    assert notes(("UCX_IB_TRAFFIC_CLASS", "0"), ucx=True) == []
    [told] = notes(("UCX_IB_TRAFFIC_CLASS", "104"), ("NCCL_IB_TC", "104"), ucx=True)
    assert "NCCL_IB_TC is 104" in told
    [_, told] = notes(("UCX_IB_TRAFFIC_CLASS", "104"), ("NCCL_IB_TC", "96"), ucx=True)
    assert "UCX sends with class 104 (UCX_IB_TRAFFIC_CLASS, environment), and NCCL with 96" in told


def test_classes_of_ucx_do_not_matter_where_it_is_not_installed() -> None:
    assert notes(("UCX_IB_TRAFFIC_CLASS", "104")) == []


def test_a_class_of_one_transport_of_ucx_counts_with_the_default_of_the_others() -> None:
    [of_one, of_others] = notes(("UCX_RC_MLX5_TRAFFIC_CLASS", "104"), ucx=True)
    assert "UCX sends with class 104 (UCX_RC_MLX5_TRAFFIC_CLASS, environment), and NCCL with 0" in of_one
    assert "UCX sends with class 106, its default on RoCE v2, and NCCL with 0" in of_others


def test_a_service_level_of_ucx_is_told() -> None:
    told = notes(("UCX_IB_TRAFFIC_CLASS", "0"), ("UCX_IB_SL", "3"), ucx=True)
    assert told == ["node1: UCX sends with service level 3 (UCX_IB_SL, environment)"]


def test_what_nccl_does_not_read_is_told_and_overrides_nothing() -> None:
    unread = Setting(name="NCCL_IB_TC ", value="106", where="/etc/nccl.conf, line 2", read=False)
    machine = msgspec.structs.replace(server().machine, classes=(unread,))
    [told] = class_notes({"node1": msgspec.structs.replace(server(), machine=machine)})
    assert told.startswith("node1: 'NCCL_IB_TC ' is set (/etc/nccl.conf, line 2), and NCCL does not read it:")


def test_a_library_that_gives_nccl_its_variables_is_told() -> None:
    [told] = notes(("NCCL_ENV_PLUGIN", "site"))
    assert told.startswith(
        "node1: NCCL_ENV_PLUGIN is site (environment): this library gives NCCL its variables"
    )


def test_the_doctor_prints_notes_and_does_not_call_them_wrong() -> None:
    here = {"node1": server(("NCCL_IB_TC", "104"))}
    examined = Examined(
        here=here,
        clocks={"node1": Reading(wall_ns=0, ahead_ns=0, error_ns=0)},
        pairs={},
        nominal_bps={},
        wrong=(),
        notes=tuple(class_notes(here)),
    )
    lines = examined_text(examined).splitlines()
    assert lines[1].startswith("note: node1: NCCL_IB_TC is 104 (environment);")
    assert lines[2:] == ["nothing is wrong"]
