"""The key files of a control plane that crosses a network.

A directory of keys has two parts. `coordinator/` stays where `mfs run` runs. `ranks/` is copied to the
servers. Whoever has one of the secret files can take part in runs, so they are readable by their owner only.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import zmq.auth

from controller.curve import ClientKeys, ServerKeys
from controller.disk import flush

_COORDINATOR: Final = "coordinator"
_RANKS: Final = "ranks"


def make_keys(directory: Path) -> tuple[Path, Path]:
    """Make new keys in `directory`: all of them, or nothing. Returns its two parts.

    Raises `FileExistsError` if one is there. Any other `OSError` names the file that could not be written.
    """
    parts = directory / _COORDINATOR, directory / _RANKS
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    for part in parts:
        if os.path.lexists(part):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(part))
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    temporary = directory / f".keys.{secrets.token_hex(4)}"
    try:
        with _named(directory):
            directory.mkdir(parents=True, exist_ok=True)
            temporary.mkdir(mode=0o700)
        _write_keys(temporary, directory)
        for part in parts:
            os.rename(temporary / part.name, part)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()
        raise
    temporary.rmdir()
    return parts


def _write_keys(temporary: Path, directory: Path) -> None:
    """Write both parts into `temporary`, onto the disk. Errors name the files that they will be in
    `directory`."""
    umask = os.umask(0o077)
    try:
        for name in (_COORDINATOR, _RANKS):
            with _named(directory / name):
                (temporary / name).mkdir()
        for name, other in ((_COORDINATOR, _RANKS), (_RANKS, _COORDINATOR)):
            part = temporary / name
            public, secret = part / f"{name}.key", part / f"{name}.key_secret"
            try:
                zmq.auth.create_certificates(part, name)
            except OSError as error:  # a write that fails names no file; the secret key is the second one
                last = secret if secret.exists() else public
                error.filename = str(directory / last.relative_to(temporary))
                raise
            copy = temporary / other / public.name
            with _named(directory / copy.relative_to(temporary)):
                copy.write_bytes(public.read_bytes())
            for path in (public, secret, copy):
                with _named(directory / path.relative_to(temporary)):
                    flush(path)
    finally:
        os.umask(umask)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Have an `OSError` name `path`."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


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
