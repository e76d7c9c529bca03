"""The key files of a control plane that crosses a network.

A directory of keys has two parts. `coordinator/` stays where `mfs run` runs. `ranks/` is copied to the
servers. Whoever has one of the secret files can take part in runs, so they are readable by their owner only.
"""

import os
import stat
from pathlib import Path
from typing import Final

import zmq.auth

from controller.curve import ClientKeys, ServerKeys

_COORDINATOR: Final = "coordinator"
_RANKS: Final = "ranks"


def make_keys(directory: Path) -> tuple[Path, Path]:
    """Make new keys in `directory`. Returns its two parts. Raises `FileExistsError` if one is there."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = directory / _COORDINATOR, directory / _RANKS
    for part in parts:
        part.mkdir(mode=0o700)
    umask = os.umask(0o077)
    try:
        for part, other in (parts, parts[::-1]):
            public, _ = zmq.auth.create_certificates(part, part.name)
            (other / f"{part.name}.key").write_bytes(Path(public).read_bytes())
    finally:
        os.umask(umask)
    return parts


def coordinator_keys(directory: Path) -> tuple[ServerKeys, ClientKeys]:
    """Return the keys with which the coordinator listens, and those with which it talks to its controller.

    `directory` is that of `make_keys`. Raises `ValueError` for what is missing or open to others.
    """
    part = directory / _COORDINATOR
    public, secret = _secret(part / f"{_COORDINATOR}.key_secret")
    allowed = tuple(sorted({_public(path) for path in part.glob("*.key")}))
    server = ServerKeys(public=public, secret=secret, allowed=allowed)
    return server, ClientKeys(server=public, public=public, secret=secret)


def ranks_keys(part: Path) -> ClientKeys:
    """Return the keys of a rank. `part` is the directory `ranks` of `make_keys`. Raises `ValueError`."""
    public, secret = _secret(part / f"{_RANKS}.key_secret")
    return ClientKeys(server=_public(part / f"{_COORDINATOR}.key"), public=public, secret=secret)


def _secret(path: Path) -> tuple[str, str]:
    public, secret = _load(path)
    if not secret:
        raise ValueError(f"{path}: no secret key in it")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ValueError(f"{path}: others may read it (mode {mode:04o}): chmod 600 {path}")
    return public, secret


def _public(path: Path) -> str:
    return _load(path)[0]


def _load(path: Path) -> tuple[str, str]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no key file ({error}); `mfs cluster keys` makes them") from None
    return public.decode(), (secret or b"").decode()
