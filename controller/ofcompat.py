"""Ryu, or os-ken, its maintained fork. No other module knows which of the two speaks OpenFlow.

The project is built for Ryu 4.34. os-ken has the same API under another name, and is used where Ryu cannot
be installed. This module hides three differences: the package name, an attribute that Ryu needs and today's
eventlet no longer has, and the threads (Ryu uses eventlet's green threads, os-ken the system's).
"""

import importlib
import importlib.metadata
import os
import select
from dataclasses import dataclass
from typing import Any

CHOICE_VARIABLE = "MFS_OPENFLOW"
"""Environment variable. Set it to `ryu` or `os-ken` to insist on one of them."""


@dataclass(frozen=True, slots=True)
class OpenFlow:
    """The parts of Ryu or os-ken that the application uses, under names common to both."""

    name: str
    version: str
    app_manager: Any
    base_class: Any
    events: Any
    handler: Any
    ofproto: Any
    hub: Any
    config: Any
    handler_app: str
    green: bool

    def configure(self, *, host: str, port: int) -> None:
        """Set the address to listen on for switches. Call it once, before applications are loaded."""
        self.config.CONF(args=[], project=self.name, version=self.version)
        self.config.CONF.set_override("ofp_listen_host", host)
        self.config.CONF.set_override("ofp_tcp_listen_port", port)

    def let_others_run(self) -> None:
        """Give the threads that talk to the switches a turn. Only green threads need this."""
        if self.green:
            self.hub.sleep(0)

    def wait_readable(self, fd: int, timeout_s: float) -> None:
        """Block this thread, green or not, until `fd` is readable or `timeout_s` has passed."""
        if self.green:
            from eventlet.hubs import trampoline
            from eventlet.timeout import Timeout

            try:
                trampoline(fd, read=True, timeout=timeout_s, timeout_exc=Timeout)
            except Timeout:
                return
        else:
            # Not `poll`, which waits whole milliseconds. ZeroMQ's descriptor is opened early, so below 1,024.
            select.select([fd], [], [], timeout_s)


def installed() -> list[str]:
    """The names of those that are installed, the preferred one first."""
    found = []
    for distribution in ("ryu", "os-ken"):
        try:
            importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(distribution)
    return found


def load() -> OpenFlow:
    """Import the one that `MFS_OPENFLOW` names; by default Ryu, or os-ken if Ryu is not installed.

    With Ryu this replaces parts of the standard library with eventlet's green versions, so call it first,
    in a process of its own. Raises `ImportError` if neither is installed, or if the named one is not.
    """
    names = installed()
    wanted = os.environ.get(CHOICE_VARIABLE)
    if wanted and wanted not in names:
        raise ImportError(f"{CHOICE_VARIABLE} asks for {wanted!r}; installed: {', '.join(names) or 'none'}")
    if not names:
        raise ImportError("neither ryu nor os-ken is installed: `mfs doctor` says how to get one")
    name = wanted or names[0]
    if name == "ryu":
        import eventlet
        import eventlet.wsgi

        eventlet.monkey_patch()
        # Ryu imports this name at load time, but uses it only in its REST server, which does not run here.
        if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):
            eventlet.wsgi.ALREADY_HANDLED = object()
    package = name.replace("-", "_")
    module = importlib.import_module
    app_manager = module(f"{package}.base.app_manager")
    return OpenFlow(
        name=name,
        version=importlib.metadata.version(name),
        app_manager=app_manager,
        base_class=app_manager.RyuApp if name == "ryu" else app_manager.OSKenApp,
        events=module(f"{package}.controller.ofp_event"),
        handler=module(f"{package}.controller.handler"),
        ofproto=module(f"{package}.ofproto.ofproto_v1_3"),
        hub=module(f"{package}.lib.hub"),
        config=module(f"{package}.cfg"),
        handler_app=f"{package}.controller.ofp_handler",
        green=name == "ryu",
    )
