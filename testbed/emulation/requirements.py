"""What the emulated fabric needs on this machine. The look-up changes nothing."""

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from controller._core import SOURCES
from controller.compiled import digest_of
from testbed.advice import install, set_up_again
from testbed.emulation import ovs
from testbed.fabric import Requirement

_APT = "apt-get install -y --no-install-recommends"
_ROOT = Path(__file__).parents[2]


@functools.cache
def requirements() -> tuple[Requirement, ...]:
    """Return the requirements. They are looked up once per process, because that runs several programs."""
    return (
        _linux(),
        _compiled_core(),
        _root(),
        _program("ovs-vswitchd", "Open vSwitch", f"{_APT} openvswitch-switch", detail=ovs.version()),
        _schema(),
        _program("mnexec", "Mininet's helper mnexec", f"{_APT} mininet"),
        _program("tc", "traffic control", f"{_APT} iproute2"),
        _program("ethtool", "ethtool", f"{_APT} ethtool"),
        _program("unshare", "unshare", f"{_APT} util-linux"),
        _program("setpriv", "setpriv", f"{_APT} util-linux"),
        _program("nsenter", "nsenter", f"{_APT} util-linux"),
        _program("mount", "mount", f"{_APT} mount"),
        _program("sysctl", "sysctl", f"{_APT} procps"),
        namespaces(),
        _package("mininet"),
        _package("torch"),
        _package("pyzmq"),
        _openflow(),
        _datapath(),
        _cuda(),
    )


def _linux() -> Requirement:
    ok = platform.system() == "Linux"
    return Requirement(name="Linux", ok=ok, detail=f"{platform.system()} {platform.release()}")


def _compiled_core() -> Requirement:
    ok = digest_of(_ROOT, ["controller/core"]) == SOURCES
    return Requirement(
        name="compiled core",
        ok=ok,
        detail="built from the sources here" if ok else "built from other sources than those here",
        fix="" if ok else set_up_again(),
    )


def _root() -> Requirement:
    uid = os.geteuid()
    return Requirement(
        name="root",
        ok=uid == 0,
        detail="yes" if uid == 0 else f"this is user {uid}; namespaces and queues need root",
        fix="" if uid == 0 else "run the same command with sudo",
    )


def _program(command: str, name: str, fix: str, detail: str = "") -> Requirement:
    path = shutil.which(command)
    return Requirement(
        name=name,
        ok=path is not None,
        detail=detail or path or f"{command} is not on the PATH",
        fix="" if path else fix,
    )


def _schema() -> Requirement:
    ok = Path(ovs.SCHEMA).exists()
    return Requirement(
        name="Open vSwitch database schema",
        ok=ok,
        detail=ovs.SCHEMA if ok else f"{ovs.SCHEMA} is missing",
        fix="" if ok else f"{_APT} openvswitch-common openvswitch-switch",
    )


def namespaces() -> Requirement:
    """Whether this user may create the namespaces of a sandbox and HTB queues, found out by trying.

    Root of a container often may not.
    """
    if shutil.which("unshare") is None:
        return Requirement(name="namespaces", ok=False, detail="cannot be tried without unshare")
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "tc", "qdisc",
         "add", "dev", "lo", "root", "htb"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ok = done.returncode == 0
    return Requirement(
        name="namespaces and HTB queues",
        ok=ok,
        detail="can be made" if ok else done.stderr.strip().splitlines()[-1] if done.stderr else "no",
        fix="" if ok or os.geteuid() != 0 else "modprobe sch_htb; or allow privileged containers",
    )


def _package(name: str) -> Requirement:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Requirement(name=f"Python package {name}", ok=False, detail="missing", fix=install(name))
    return Requirement(name=f"Python package {name}", ok=True, detail=version)


def _openflow() -> Requirement:
    from controller import ofcompat

    found = ofcompat.installed()
    return Requirement(
        name="OpenFlow controller",
        ok=bool(found),
        detail=", ".join(f"{n} {importlib.metadata.version(n)}" for n in found) or "no ryu, no os-ken",
        fix="" if found else install("os-ken", "os-ken>=4"),
    )


def _datapath() -> Requirement:
    kernel = Path("/sys/module/openvswitch").exists()
    return Requirement(
        name="kernel datapath",
        ok=kernel,
        detail="present" if kernel else "not loaded: the userspace datapath is used, which is slower",
        fix="" if kernel else "modprobe openvswitch (where the kernel has it)",
        needed=False,
    )


def _cuda() -> Requirement:
    present = Path("/dev/nvidiactl").exists()
    return Requirement(
        name="CUDA device",
        ok=present,
        detail="present" if present else "absent: tensors stay on the CPU, collectives use gloo",
        needed=False,
    )
