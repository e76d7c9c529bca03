"""`mfs cluster`: what its commands print, and what they refuse."""

from pathlib import Path

import pytest
from toy_fabric import Mfs

INVENTORY = """\
coordinator: {address: 10.1.0.250}
keys: keys
servers:
  - {host: node01, address: 192.168.1.1, nic: eth1}
  - {host: node02, address: 192.168.1.2, nic: eth1}
  - {host: node03, address: 192.168.1.3, nic: eth1}
"""


@pytest.fixture(autouse=True)
def inventory(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(INVENTORY)
    (tmp_path / "keys").mkdir()


def test_an_interface_that_a_shell_would_run_is_refused(mfs: Mfs, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(INVENTORY.replace("eth1", "'ens1f0;reboot'", 1))
    assert mfs("cluster", "switch", "--inventory", "cluster.yaml") == 2
    assert "servers[0].nic: 'ens1f0;reboot' is no name of an interface" in mfs.err
    assert mfs.out == ""


@pytest.mark.parametrize("ports", ["", "Ethernet0,", "Ethernet0, Ethernet4", "Ethernet0|3"])
def test_what_is_no_port_of_a_switch_is_refused(mfs: Mfs, ports: str) -> None:
    assert mfs("cluster", "switch", "--inventory", "cluster.yaml", "--ports", ports) == 2
    assert f"--ports: {ports.split(',')[-1]!r} is no name of a port" in mfs.err


def test_ports_of_a_switch_are_parted_by_commas(mfs: Mfs) -> None:
    assert mfs("cluster", "switch", "--inventory", "cluster.yaml", "--ports", "Ethernet0,Ethernet4") == 0
    assert '"Ethernet4|7"' in mfs.out


@pytest.mark.parametrize("command", ["command", "sbatch"])
@pytest.mark.parametrize("python", ["", "-i", "/opt/a=b/python"])
def test_what_env_would_not_run_is_no_interpreter(mfs: Mfs, command: str, python: str) -> None:
    arguments = ("cluster", command, "two-flows", "--inventory", "cluster.yaml", f"--python={python}")
    assert mfs(*arguments) == 2
    assert f"--python: {python!r} would not be taken for a program" in mfs.err
