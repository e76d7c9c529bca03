"""The queue tree of a port: the commands that build it, and every difference that is found."""

import json
import subprocess

import msgspec
import pytest

from controller.flow import Level
from controller.openflow import dscp_of
from testbed.emulation import queues
from testbed.emulation.network import send_buffer_bytes
from testbed.emulation.queues import QueueMismatch, QueueTree, Sampler, read_back, set_up

TREE = QueueTree(device="nh1-eth2", line_bps=97_656_250.0, mtu=4200)

Rows = list[dict[str, str | int | float]]


class Kernel:
    """Answers `tc` as iproute2 6.1 does for `TREE`. Tests change its fields before they ask it.

    It prints rates as the kernel does: 97,656,250 bit/s as 97656Kbit.
    """

    def __init__(self) -> None:
        self.levels = {
            level: {"rate": "1953120bit", "ceil": "97656Kbit", "leaf": "pfifo", "limit": 3000}
            for level in Level
        }
        self.prio = {level: int(level) for level in Level}
        self.tos = {level: dscp_of(level) << 2 for level in Level}
        self.root_rate = "97656Kbit"
        self.extra = ""
        self.default = "0x10"
        self.others: list[dict[str, object]] = []

    def __call__(self, *arguments: str) -> str:
        match [word for word in arguments if word in ("class", "qdisc", "filter")]:
            case ["class"]:
                return self._classes()
            case ["qdisc"]:
                return json.dumps(
                    [{"kind": "htb", "handle": "1:", "root": True, "options": {"default": self.default}}]
                    + [
                        {
                            "kind": found["leaf"],
                            "handle": f"{0x10 + level:x}:",
                            "parent": f"1:{0x10 + level:x}",
                            "options": {"limit": found["limit"]},
                        }
                        for level, found in self.levels.items()
                    ]
                )
            case _:
                return json.dumps(
                    [{"parent": "1:", "kind": "u32"}, {"options": {"fh": "800:", "ht_divisor": 1}}]
                    + [
                        {
                            "options": {
                                "flowid": f"1:{0x10 + level:x}",
                                "match": {"value": f"{tos << 16:x}", "mask": "fc0000", "off": 0},
                            }
                        }
                        for level, tos in self.tos.items()
                    ]
                    + self.others
                )

    def _classes(self) -> str:
        lines = [f"class htb 1:1 root rate {self.root_rate} ceil 97656Kbit burst 15979b cburst 15979b "]
        for level, found in self.levels.items():
            minor = f"{0x10 + level:x}"
            lines.append(
                f"class htb 1:{minor} parent 1:1 leaf {minor}: prio {self.prio[level]}"
                f" rate {found['rate']} ceil {found['ceil']} burst 4213b cburst 15979b "
            )
        return "\n".join([*reversed(lines), self.extra]) + "\n"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(queues, "_tc", made)
    return made


def commands(monkeypatch: pytest.MonkeyPatch, *trees: QueueTree) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(queues, "_tc_batch", said.extend)
    set_up(trees)
    return said


def test_a_tree_is_one_parent_and_a_class_a_queue_and_a_filter_per_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = commands(monkeypatch, TREE)
    assert len(said) == 2 + 3 * 8
    assert said[0] == "qdisc add dev nh1-eth2 root handle 1: htb default 10"
    assert said[1].startswith(
        "class add dev nh1-eth2 parent 1: classid 1:1 htb rate 97656250bit ceil 97656250bit burst 8428"
    )


def test_a_level_has_its_priority_two_hundredths_guaranteed_and_the_line_as_its_ceiling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    klass, leaf, classifier = commands(monkeypatch, TREE)[11:14]  # P3
    assert klass == (
        "class add dev nh1-eth2 parent 1:1 classid 1:13 htb rate 1953125bit ceil 97656250bit"
        " prio 3 burst 4214 cburst 8428 quantum 4214"
    )
    assert leaf == "qdisc add dev nh1-eth2 parent 1:13 handle 13: pfifo limit 3000"
    assert classifier == (
        "filter add dev nh1-eth2 parent 1: protocol ip prio 1 u32 match ip tos 0x80 0xfc flowid 1:13"
    )


def test_a_line_can_let_fewer_packets_pass_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = commands(monkeypatch, msgspec.structs.replace(TREE, burst_packets=1))
    assert " burst 4214 cburst 4214 " in said[1]
    assert said[11].endswith(" burst 4214 cburst 4214 quantum 4214")


def leaves(monkeypatch: pytest.MonkeyPatch, tree: QueueTree) -> dict[Level, tuple[int, int, int]]:
    """The guaranteed rate, the prio and the quantum of each level, as asked of tc."""
    said = [line.split() for line in commands(monkeypatch, tree) if " classid 1:1" in line][1:]
    return {
        level: (
            int(words[words.index("rate") + 1].removesuffix("bit")),
            int(words[words.index("prio") + 1]),
            int(words[words.index("quantum") + 1]),
        )
        for level, words in zip(Level, said, strict=True)
    }


def test_levels_with_weights_have_their_parts_of_the_line_and_one_priority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 100 Mb/s, 2 % each are for CONTROL and SCAVENGER, and 0.1 % for each of the four levels that no flow
    uses. The other 95.6 % are divided 3 : 1. In a turn, the first borrows three packets of 4,214 bytes."""
    tree = QueueTree(device="nh1-eth2", line_bps=100e6, mtu=4200, weights={Level.P1: 3.0, Level.P4: 1.0})
    assert leaves(monkeypatch, tree) == {
        Level.CONTROL: (2_000_000, 0, 4_214),
        Level.P1: (71_700_000, 1, 12_642),
        Level.P2: (100_000, 2, 4_214),
        Level.P3: (100_000, 3, 4_214),
        Level.P4: (23_900_000, 1, 4_214),
        Level.P5: (100_000, 5, 4_214),
        Level.P6: (100_000, 6, 4_214),
        Level.SCAVENGER: (2_000_000, 7, 4_214),
    }


@pytest.mark.parametrize("weights", [{Level.P1: 99.0, Level.P2: 1.0}, dict.fromkeys(list(Level)[1:7], 1.0)])
def test_guaranteed_rates_never_exceed_the_line(
    monkeypatch: pytest.MonkeyPatch, weights: dict[Level, float]
) -> None:
    tree = QueueTree(device="nh1-eth2", line_bps=1.23e6, mtu=4200, weights=weights)
    found = leaves(monkeypatch, tree)
    assert 0.999 * 1.23e6 <= sum(rate for rate, _, _ in found.values()) <= 1.23e6 + 8
    assert all(quantum < 200_000 for _, _, quantum in found.values())


def test_all_trees_are_built_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    other = QueueTree(device="s1-eth1", line_bps=1e6, mtu=1500)
    said = commands(monkeypatch, TREE, other)
    assert [sum(f"dev {tree.device} " in line for line in said) for tree in (TREE, other)] == [26, 26]


def test_what_the_kernel_has_is_read_back_level_by_level(kernel: Kernel) -> None:
    rows = read_back([TREE])["nh1-eth2"]
    assert [row["class"] for row in rows] == ["1:1", *(f"1:1{i}" for i in range(8))]
    assert rows[3] == {
        "class": "1:12",
        "prio": 2,
        "rate_bps": 1_953_120.0,
        "ceil_bps": 97_656_000.0,
        "leaf": "pfifo",
        "limit_packets": 3000,
        "dscp": 40,
    }


def fault(kernel: Kernel) -> str:
    with pytest.raises(QueueMismatch) as caught:
        read_back([TREE])
    (_, line) = str(caught.value).split("\n")
    return line.strip()


def test_a_rate_that_differs_is_a_fault(kernel: Kernel) -> None:
    kernel.root_rate = "95Mbit"
    assert fault(kernel) == "nh1-eth2 1:1: rate_bps is 95000000.0, asked for 97656250.0"


def test_a_guarantee_that_differs_is_a_fault(kernel: Kernel) -> None:
    kernel.levels[Level.P2]["rate"] = "64Kbit"
    assert fault(kernel) == "nh1-eth2 1:12: rate_bps is 64000.0, asked for 1953125.0"


def test_a_ceiling_that_differs_is_a_fault(kernel: Kernel) -> None:
    kernel.levels[Level.P6]["ceil"] = "1Gbit"
    assert fault(kernel) == "nh1-eth2 1:16: ceil_bps is 1000000000.0, asked for 97656250.0"


def test_a_priority_that_differs_is_a_fault(kernel: Kernel) -> None:
    kernel.prio[Level.P5] = 0
    assert fault(kernel) == "nh1-eth2 1:15: prio is 0, asked for 5"


def test_another_kind_of_queue_is_a_fault(kernel: Kernel) -> None:
    kernel.levels[Level.P1]["leaf"] = "fq_codel"
    assert fault(kernel) == "nh1-eth2 1:11: leaf is fq_codel, asked for pfifo"


def test_a_shorter_queue_is_a_fault(kernel: Kernel) -> None:
    kernel.levels[Level.P1]["limit"] = 100
    assert fault(kernel) == "nh1-eth2 1:11: limit_packets is 100, asked for 3000"


def test_a_filter_for_another_dscp_is_a_fault(kernel: Kernel) -> None:
    kernel.tos[Level.P4] = 46 << 2
    assert fault(kernel) == "nh1-eth2 1:14: dscp is 46, asked for 24"


def test_a_missing_filter_is_a_fault(kernel: Kernel) -> None:
    del kernel.tos[Level.SCAVENGER]
    assert fault(kernel) == "nh1-eth2 1:17: dscp is -1, asked for 0"


def test_a_filter_of_another_kind_is_a_fault(kernel: Kernel) -> None:
    """The filter sends everything to P1, whatever its DSCP."""
    kernel.others = [{"kind": "u32", "options": {"flowid": "1:11", "match": {"value": "0", "mask": "0"}}}]
    assert fault(kernel) == "nh1-eth2 1:1: other_filters is 1, asked for 0"


def test_another_default_class_is_a_fault(kernel: Kernel) -> None:
    kernel.default = "0x17"
    assert fault(kernel) == "nh1-eth2 1:1: default_class is 0x17, asked for 0x10"


def test_a_missing_level_is_a_fault(kernel: Kernel) -> None:
    del kernel.levels[Level.P3]
    assert fault(kernel) == "nh1-eth2 1:13: missing"


def test_a_class_nobody_asked_for_is_a_fault(kernel: Kernel) -> None:
    kernel.extra = "class htb 1:18 parent 1:1 leaf 18: prio 0 rate 1Mbit ceil 97656Kbit burst 4213b"
    assert fault(kernel) == "nh1-eth2 1:18: unexpected"


def test_a_device_without_queues_lacks_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_tc", lambda *arguments: "[]" if "-j" in arguments else "")
    with pytest.raises(QueueMismatch) as caught:
        read_back([TREE])
    assert str(caught.value).count("missing") == 9


def test_all_faults_are_told_together(kernel: Kernel) -> None:
    kernel.prio[Level.P1] = 6
    kernel.tos[Level.P2] = 0
    with pytest.raises(QueueMismatch, match=r"(?s)prio is 6, asked for 1.*dscp is 0, asked for 40"):
        read_back([TREE])


def test_the_rounding_of_tc_is_no_fault(kernel: Kernel) -> None:
    """97,656,250 bit/s is printed as 97656Kbit, and 1,953,125 as 1953120bit: less than 0.1 % off."""
    read_back([TREE])


def test_counters_are_in_the_order_of_levels_whatever_the_order_of_tc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def output(factor: int) -> str:
        rows = [
            {
                "kind": "pfifo",
                "handle": f"{0x10 + level:x}:",
                "bytes": 100 * level * factor,
                "packets": int(level) * factor,
                "backlog": 7 - level,
                "drops": int(level == Level.P2),
            }
            for level in reversed(Level)
        ]
        return json.dumps([{"kind": "htb", "handle": "1:", "bytes": 1}, *rows]) + "\n"

    def run(command: list[str], *, input: str, **_: object) -> subprocess.CompletedProcess[str]:
        assert input == "qdisc show dev a\nqdisc show dev b\n"
        return subprocess.CompletedProcess(command, 0, stdout=output(1) + output(10))

    monkeypatch.setattr(subprocess, "run", run)
    counters = Sampler(["a", "b"]).sample()
    assert counters["a"].sent_bytes == (0, 100, 200, 300, 400, 500, 600, 700)
    assert counters["b"].packets == (0, 10, 20, 30, 40, 50, 60, 70)
    assert counters["a"].backlog_bytes == (7, 6, 5, 4, 3, 2, 1, 0)
    assert counters["a"].drops == (0, 0, 1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("line_mbps", "held"), [(1, 16_384), (20, 40_000), (50, 100_000), (100, 131_072), (4000, 131_072)]
)
def test_a_socket_holds_what_its_nic_sends_in_sixteen_milliseconds(line_mbps: int, held: int) -> None:
    """20 Mb/s * 16 ms = 320 kbit = 40 kB. At least four packets, at most a receive buffer."""
    assert send_buffer_bytes(line_mbps * 1e6) == held
