"""Compiled programs kept in the user's cache folder, so that none is compiled twice."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import platform
import re
import threading
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import platformdirs
from jax.experimental import serialize_executable
from jaxlib import lapack

import jdl
from jdl.engine.checkpoint import write_atomically

MOST_BYTES = 2**30  # kept; the programs that were not used for longest go first
_SUFFIX = ".program"


def folder() -> pathlib.Path | None:
    """The cache folder, $JDL_CACHE_DIR if it is set; None if it is set to nothing."""
    given = os.environ.get("JDL_CACHE_DIR")
    if given is None:
        return pathlib.Path(platformdirs.user_cache_dir("jdl"))
    return pathlib.Path(given).expanduser() if given else None


def compiled(
    facts: Sequence[Any], devices: Sequence[Any], trees: tuple[Any, Any], make: Callable[[], Any]
) -> tuple[Any, bool]:
    """The program that `make` compiles, read from the cache if an earlier process compiled it.

    Args:
      facts: what its computation depends on, besides code of jdl, versions,
        devices and settings; their reprs must say all of it.
      devices: that it runs on.
      trees: the structures of its arguments `(args, kwargs)` and of its result.
      make: lowers and compiles.

    Returns:
      The compiled program, and whether it was found.
    """
    place = folder()
    if place is None:
        return make(), False
    path = place / "programs" / (key(facts, devices) + _SUFFIX)
    found = _read(path, trees, devices)
    if found is not None:
        return found, True
    _listen()
    _found_by_jax.hits = 0
    made = make()
    # What JAX's own cache gave does not run once it has been serialized again (JAX 0.10).
    if not _found_by_jax.hits:
        _write(path, made)
    return made, False


_found_by_jax = threading.local()


@functools.cache
def _listen() -> None:
    """Counts what the persistent cache of JAX gives to each thread."""

    def count(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            _found_by_jax.hits = getattr(_found_by_jax, "hits", 0) + 1

    jax.monitoring.register_event_listener(count)


def kept(function: Any, facts: Sequence[Any], devices: Sequence[Any], result: Any) -> Any:
    """A function under `jax.jit`, compiled through the cache once for each form of its arguments.

    Args:
      function: as `jax.jit` gives it.
      facts: what its computation depends on, as in `compiled`.
      devices: that it runs on.
      result: a tree of the structure of its result.
    """
    programs: dict[Any, Any] = {}

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        form = tuple((a.shape, str(a.dtype), str(getattr(a, "sharding", None))) for a in leaves)
        if (structure, form) not in programs:
            programs[structure, form], _ = compiled(
                (*facts, str(structure), form),
                devices,
                (jax.tree.structure((args, {})), jax.tree.structure(result)),
                lambda: function.lower(*args).compile(),
            )
        return programs[structure, form](*args)

    return call


def size() -> tuple[int, int]:
    """The number of cached programs, and their bytes."""
    place = folder()
    sizes = [bytes_ for _, bytes_, _ in _entries(place / "programs")] if place else []
    return len(sizes), sum(sizes)


def _read(path: pathlib.Path, trees: tuple[Any, Any], devices: Sequence[Any]) -> Any:
    """The program of `path`, or None if there is none or it does not load."""
    try:
        blob = path.read_bytes()
        check, payload = blob[:4], blob[4:]
        if zlib.crc32(payload).to_bytes(4, "big") != check:
            return None
        if b"lapack" in payload:
            # Lowering does this, and a found program is not lowered: it would call a null pointer.
            lapack._lapack.initialize()
        backend = devices[0].client
        found = serialize_executable.deserialize_and_load(
            payload, *trees, backend=backend, execution_devices=devices
        )
        os.utime(path)
    except Exception:  # an entry that does not load, whatever is wrong with it, is compiled again
        return None
    return found


def _write(path: pathlib.Path, made: Any) -> None:
    """Keeps a program, unless it cannot be serialised or the folder cannot be written."""
    try:
        payload, *_ = serialize_executable.serialize(made)
    except Exception:  # a program with host callbacks or large constants, or another backend
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, zlib.crc32(payload).to_bytes(4, "big") + payload)
        _shrink(path.parent)
    except OSError as error:
        warnings.warn(
            f"Compiled programs cannot be kept: {error}. Set JDL_CACHE_DIR to a folder that can "
            "be written, or to nothing.",
            stacklevel=1,
        )


def _shrink(place: pathlib.Path) -> None:
    total = 0
    for path, bytes_, _ in sorted(_entries(place), key=lambda entry: -entry[2]):
        total += bytes_
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)


def _entries(place: pathlib.Path) -> list[tuple[pathlib.Path, int, float]]:
    """Path, size and last use of each entry; others may delete them meanwhile."""
    found = []
    for path in place.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((path, status.st_size, status.st_mtime))
    return found


def key(facts: Sequence[Any], devices: Sequence[Any]) -> str:
    """A hash of everything that a compiled program depends on."""
    config = {
        name: value
        for name, value in jax.config.values.items()  # type: ignore[attr-defined]
        if "cache" not in name
    }
    first = devices[0]
    parts = [
        [jax.__version__, jax.lib.__version__, _code()],
        [(d.id, d.process_index) for d in devices],
        [first.platform, first.device_kind, first.client.platform_version, _processor()],
        sorted(config.items()),
        [os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
        list(facts),
    ]
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
    """A hash of jdl's own files, which a development version does not otherwise name."""
    digest = hashlib.sha256()
    top = pathlib.Path(jdl.__file__).parent
    for path in sorted(top.rglob("*.py")):
        digest.update(path.relative_to(top).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _processor() -> str:
    """The processor's model and features, which code for a CPU depends on."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        kept = {x for x in lines if x.split("\t")[0] in ("model name", "flags", "Features")}
        return repr(sorted(kept))
    return platform.processor()
