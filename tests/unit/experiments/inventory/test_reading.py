"""`cluster.yaml`: what it may say, and how a slip is told with its file, line and key."""

from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.inventory.reading import read_inventory

GOOD = """\
coordinator:
  address: 10.1.0.250
keys: keys
servers:
  - {host: node01, address: 192.168.1.1, nic: eth1}
  - {host: node02, address: 192.168.1.2, nic: eth1, gpus: 4, server: h7}
"""


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "keys").mkdir(exist_ok=True)
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return path


def problem(tmp_path: Path, text: str) -> str:
    """The message, without the path of the file."""
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_inventory(path)
    return str(caught.value).replace(str(path), "cluster.yaml")


def test_an_inventory_has_defaults_and_keys_relative_to_its_file(tmp_path: Path) -> None:
    inventory = read_inventory(written(tmp_path, GOOD))
    assert inventory.keys == str(tmp_path / "keys")
    assert inventory.dscps == (56, 48, 40, 32, 24, 16, 8, 0)
    assert [inventory.endpoint(i) for i in range(3)] == [f"tcp://10.1.0.250:{29600 + i}" for i in range(3)]
    assert [(s.host, s.gpus, s.server) for s in inventory.servers] == [
        ("node01", 0, None),
        ("node02", 4, "h7"),
    ]


def test_the_address_to_listen_at_may_be_another_one(tmp_path: Path) -> None:
    text = GOOD.replace("address: 10.1.0.250", "address: 10.1.0.250\n  listen: 172.17.0.2")
    inventory = read_inventory(written(tmp_path, text))
    assert inventory.endpoint(0) == "tcp://10.1.0.250:29600"
    assert inventory.endpoint(0, listen=True) == "tcp://172.17.0.2:29600"


@pytest.mark.parametrize("name", ["eth0.100", "ib0", "a23456789012345", "enp1s0f0-v2", "_x"])
def test_usual_names_of_interfaces_are_taken(tmp_path: Path, name: str) -> None:
    inventory = read_inventory(written(tmp_path, GOOD.replace("nic: eth1,", f"nic: {name},")))
    assert inventory.servers[1].nic == name


def test_without_enforcement_there_are_no_dscps(tmp_path: Path) -> None:
    assert read_inventory(written(tmp_path, GOOD + "enforcement: none\n")).dscps is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("nic: eth1}", "nick: eth1}", "line 5: unknown key 'servers[0].nick'; did you mean 'nic'?"),
        ("keys: keys\n", "", "cluster.yaml: 'keys' is missing"),
        (", nic: eth1}", "}", "line 5: 'servers[0].nic' is missing"),
        ("gpus: 4", "gpus: four", "line 6: servers[1].gpus: has to be a whole number"),
        ("keys: keys", "keyss: keys", "line 3: unknown key 'keyss'; did you mean 'keys'?"),
        ("node02", "node01", "line 6: servers[1].host: 'node01' is servers[0] already"),
        ("192.168.1.2", "192.168.1.1", "line 6: servers[1].address: '192.168.1.1' is servers[0] already"),
        ("192.168.1.2", "node02", "line 6: servers[1].address: 'node02' is no IPv4 address of a server"),
        (
            "192.168.1.2",
            "224.0.0.1",
            "line 6: servers[1].address: '224.0.0.1' is no IPv4 address of a server",
        ),
        (
            "node02",
            "'node02; rm'",
            "line 6: servers[1].host: 'node02; rm' is no host name, as `hostname` says it",
        ),
        *(
            (
                "nic: eth1,",
                f"nic: '{name}',",
                f"line 6: servers[1].nic: {name!r} is no name of an interface: 1 to 15 letters, digits, dots,"
                " dashes and underscores, as `ip link` says it, and no dash or dot first",
            )
            for name in ("ens1f0;reboot", "a b", "a/b", "$(id)", "-i", "..", "a234567890123456")
        ),
        ("nic: eth1,", "nic: '',", "line 6: servers[1].nic: name the interface that has the address"),
        ("node02", "''", "line 6: servers[1].host: '' is no host name, as `hostname` says it"),
        (
            "10.1.0.250",
            "0.0.0.0",
            "line 2: coordinator.address: '0.0.0.0' is no IPv4 address that servers can connect to",
        ),
        (
            "10.1.0.250",
            "10.1.0.250\n  listen: 0.0.0.0",
            "line 3: coordinator.listen: 0.0.0.0 listens on every network of the machine: name one address,"
            " or set coordinator.listen_everywhere to true",
        ),
        (
            "10.1.0.250",
            "10.1.0.250\n  port: 65534",
            "line 3: coordinator.port: 65534 is not between 1 and 65533",
        ),
        (
            "keys: keys",
            "keys: keys\ncollectives: nccl",
            "line 4: collectives: levels of NCCL are not built: it fixes the class of a connection when it"
            " makes it, so the level of a collective could not change; use gloo",
        ),
        ("keys: keys", "keys: keys\nenforcement: ecn", "line 4: enforcement: 'ecn' is none of dscp, none"),
        ("keys: keys", "keys: keys\ndscp: [1, 2]", "line 4: dscp: has 2 values; there are 8 levels"),
        (
            "keys: keys",
            "keys: keys\ndscp: [1, 2, 3, 4, 5, 6, 7, 7]",
            "line 4: dscp: two levels have the same DSCP, so switches could not tell them apart",
        ),
        (
            "keys: keys",
            "keys: keys\ndscp: [64, 2, 3, 4, 5, 6, 7, 8]",
            "line 4: dscp: a DSCP is between 0 and 63",
        ),
        (
            "keys: keys",
            "keys: keys\nstore_port: 29400",
            "line 4: store_port: 29400 is the port of rendezvous_port, too",
        ),
        (
            "192.168.1.2",
            "127.0.0.1",
            "line 6: servers[1].address: 127.0.0.1 is reached from node02 only, and node01 has 192.168.1.1:"
            " give the address on the data network",
        ),
        (
            "10.1.0.250",
            "127.0.0.1",
            "line 2: coordinator.address: 127.0.0.1 is another machine on each server: give the address at"
            " which servers reach this one",
        ),
        *(
            (
                "keys: keys",
                f"keys: keys\n{name}: {port}",
                f"line 4: {name}: {port} is one of the coordinator's ports, 29600 to 29602; the coordinator"
                " may be a server, too, so choose another port",
            )
            for name, port in (("rendezvous_port", 29601), ("store_port", 29600), ("store_port", 29602))
        ),
        (
            "10.1.0.250",
            "10.1.0.250\n  port: 29400",
            "line 3: coordinator.port: one of 29400 to 29402 is rendezvous_port, 29400; the coordinator may"
            " be a server, too, so choose another port",
        ),
        (
            "10.1.0.250",
            "10.1.0.250\n  port: 29498",
            "line 3: coordinator.port: one of 29498 to 29500 is store_port, 29500; the coordinator may be a"
            " server, too, so choose another port",
        ),
    ],
)
def test_a_slip_is_told_with_its_line_and_its_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert GOOD.count(old) in (1, 2)
    assert problem(tmp_path, GOOD.replace(old, new, 1)).endswith(told)


def test_ports_beside_those_of_the_coordinator_are_free(tmp_path: Path) -> None:
    text = GOOD + "rendezvous_port: 29599\nstore_port: 29603\n"
    assert read_inventory(written(tmp_path, text)).store_port == 29603


def test_all_servers_may_be_on_loopback(tmp_path: Path) -> None:
    text = GOOD.replace("192.168.1.", "127.0.0.").replace("10.1.0.250", "127.0.0.1")
    assert [s.address for s in read_inventory(written(tmp_path, text)).servers] == ["127.0.0.1", "127.0.0.2"]


def test_one_server_may_be_this_machine(tmp_path: Path) -> None:
    text = "\n".join(GOOD.replace("10.1.0.250", "127.0.0.1").splitlines()[:-1])
    assert len(read_inventory(written(tmp_path, text)).servers) == 1


def test_a_directory_of_keys_that_is_missing_is_told_with_what_makes_it(tmp_path: Path) -> None:
    told = problem(tmp_path, GOOD.replace("keys: keys", "keys: my keys"))
    there = tmp_path / "my keys"
    assert told == (
        f"cluster.yaml, line 3: keys: there is no directory {there}; make it with"
        f" `mfs cluster keys '{there}'`"
    )


def test_everywhere_is_allowed_if_it_is_asked_for(tmp_path: Path) -> None:
    text = GOOD.replace("10.1.0.250", "10.1.0.250\n  listen: 0.0.0.0\n  listen_everywhere: true")
    assert read_inventory(written(tmp_path, text)).endpoint(2, listen=True) == "tcp://0.0.0.0:29602"


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("192.168.1.1", "a").replace("192.168.1.2", "b")
    assert len(problem(tmp_path, text).splitlines()) == 2


def test_a_list_is_no_inventory(tmp_path: Path) -> None:
    assert problem(tmp_path, "- a\n").endswith("an inventory is a mapping of keys to values")
