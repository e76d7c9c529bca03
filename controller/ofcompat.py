"""The one place that knows whether OpenFlow is spoken by Ryu or by os-ken, its maintained fork.

Ryu 4.34 is what the project was asked for; os-ken has the same API under another name and is taken
where Ryu cannot be installed. They differ in three ways that matter here, all settled below: the
package name, Ryu's reliance on an attribute that today's eventlet no longer has, and the
threads (Ryu: eventlet's green ones; os-ken: the system's).
"""

import importlib
import importlib.metadata
import os
import select
from dataclasses import dataclass
from typing import Any

CHOICE_VARIABLE = "MFS_OPENFLOW"
"""Set to `ryu` or `os-ken` to insist on one of them."""


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
        """Say where to listen for switches; to be called once, before applications are loaded."""
        self.config.CONF(args=[], project=self.name, version=self.version)
        self.config.CONF.set_override("ofp_listen_host", host)
        self.config.CONF.set_override("ofp_tcp_listen_port", port)

    def let_others_run(self) -> None:
        """Green threads only: give the threads that talk to the switches a turn."""
        if self.green:
            self.hub.sleep(0)

    def wait_readable(self, fd: int, timeout_s: float) -> None:
        """Block this thread, green or not, until `fd` is readable or the time is over."""
        if self.green:
            from eventlet.hubs import trampoline
            from eventlet.timeout import Timeout

            try:
                trampoline(fd, read=True, timeout=timeout_s, timeout_exc=Timeout)
            except Timeout:
                return
        else:
            select.select([fd], [], [], timeout_s)


def installed() -> list[str]:
    """Which of the two are installed, the preferred one first."""
    found = []
    for distribution in ("ryu", "os-ken"):
        try:
            importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(distribution)
    return found


def load() -> OpenFlow:
    """Import Ryu, or os-ken where Ryu is absent.

    Under Ryu this monkey-patches the standard library with eventlet's green versions, so call it
    first thing in a process of its own. Raises `ImportError` if neither is installed, or not the
    one that `MFS_OPENFLOW` asks for.
    """
    names = installed()
    wanted = os.environ.get(CHOICE_VARIABLE)
    if wanted and wanted not in names:
        raise ImportError(f"{CHOICE_VARIABLE} asks for {wanted!r}; installed: {', '.join(names) or 'none'}")
    if not names:
        raise ImportError("neither ryu nor os-ken is installed: run `make setup`")
    name = wanted or names[0]
    if name == "ryu":
        import eventlet
        import eventlet.wsgi

        eventlet.monkey_patch()
        # Ryu imports this name at load time and uses it only for its REST server, which we have not.
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
