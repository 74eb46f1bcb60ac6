"""`jdl doctor`: shows what JAX runs on, in which versions, and any problems."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("jdl", "jax", "jaxlib", "numpy", "matplotlib", "pandas")
PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin", "jax-rocm7-plugin", "libtpu", "jax-metal")
OPTIONAL = {"matplotlib": "plot", "pandas": "pandas"}


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Show the backend, the devices, the versions and any problems with them.

    The exit code is 1 if there is a problem.
    """

    def run(self) -> int:
        """Prints the findings."""
        from rich.console import Console

        from jdl.engine.devices import use_all_cores

        use_all_cores()
        console = Console(highlight=False)
        machine = look()
        for name, value in facts(machine).items():
            console.print(f"{name:<12} {value}", soft_wrap=True, markup=False)
        found = problems(machine)
        for problem in found:
            console.print(f"\nproblem: {problem}", soft_wrap=True, markup=False, style="bold")
        if not found:
            console.print("\nNothing is wrong.")
        return 1 if found else 0


class Machine(NamedTuple):
    """The facts that the doctor examines.

    Attributes:
      versions: of the installed packages.
      backend: "cpu", "gpu" or "tpu"; empty if JAX could not start.
      devices: the name of each.
      failure: why JAX could not start, or compute on a device; empty if it could.
      seconds: to compile and run a small program on all devices.
      cores: how many this process may use.
      cores_there: how many the machine has.
      quota: CPU time that a container allows, in cores; inf if it sets no limit.
      nvidia: whether the machine has an NVIDIA GPU.
      environment: variables that affect JAX.
      switches: settings of JAX that make it slow or wide.
      cache: where compiled programs are kept, how many and how large.
    """

    versions: dict[str, str]
    backend: str
    devices: list[str]
    failure: str
    seconds: float
    cores: int
    cores_there: int
    quota: float
    nvidia: bool
    environment: dict[str, str]
    switches: list[str]
    cache: str


def look() -> Machine:
    """Starts JAX and examines it and the machine."""
    import jax
    import jax.numpy as jnp

    versions = {}
    for package in (*PACKAGES, *PLUGINS):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    backend, devices, failure = "", [], ""
    start = time.monotonic()
    try:
        backend = jax.default_backend()
        devices = [_device(device) for device in jax.local_devices()]
        for device in jax.local_devices():
            ones = jax.device_put(jnp.ones((64, 64)), device)
            got = float(jax.jit(lambda a: (a @ a).sum())(ones))
            if got != 64**3:
                failure = f"{device} computes wrongly: {got} instead of {64**3}"
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    cores_there = os.cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    prefixes = ("JAX_", "XLA_", "CUDA_VISIBLE", "ROCR_VISIBLE", "JDL_")
    switches = ("jax_enable_x64", "jax_disable_jit", "jax_debug_nans", "jax_debug_infs")
    return Machine(
        versions=versions,
        backend=backend,
        devices=devices,
        failure=failure,
        seconds=time.monotonic() - start,
        cores=len(affinity(0)) if affinity else cores_there,
        cores_there=cores_there,
        quota=_quota(),
        nvidia=has_nvidia(),
        environment={k: v for k, v in sorted(os.environ.items()) if k.startswith(prefixes)},
        switches=[name for name in switches if getattr(jax.config, name)],
        cache=_cache(),
    )


def _cache() -> str:
    from jdl.engine import cache
    from jdl.engine.memory import readable

    if (place := cache.folder()) is None:
        return "off, because JDL_CACHE_DIR is empty"
    programs, total = cache.size()
    return f"{programs} compiled program{'s' * (programs != 1)}, {readable(total)}, in {place}"


def facts(machine: Machine) -> dict[str, str]:
    """The lines that describe the machine, by name."""
    core = [f"{n} {machine.versions.get(n, 'missing')}" for n in PACKAGES if n not in OPTIONAL]
    extras = [
        f"{n} {machine.versions[n]}"
        if n in machine.versions
        else f"{n} no (pip install 'jdl[{x}]')"
        for n, x in OPTIONAL.items()
    ]
    plugins = [f"{n} {machine.versions[n]}" for n in PLUGINS if n in machine.versions]
    cores = f"{machine.cores} of {machine.cores_there}"
    if machine.quota < machine.cores:
        cores += f", but the container allows the time of only {machine.quota:g}"
    kinds = [f"{machine.devices.count(d)} x {d}" for d in dict.fromkeys(machine.devices)]
    lines = {
        "versions": ", ".join([*core, *plugins]),
        "extras": ", ".join(extras),
        "python": f"{platform.python_version()} ({sys.executable}), {platform.platform()}",
        "backend": machine.backend or "none",
        "devices": ", ".join(kinds) or "none",
        "cores": cores,
    }
    if not machine.failure:
        lines["check"] = f"every device computes ({machine.seconds:.1f} s to start and compile)"
    lines["cache"] = machine.cache
    if machine.environment:
        lines["environment"] = " ".join(f"{k}={v}" for k, v in machine.environment.items())
    if machine.switches:
        lines["switches"] = ", ".join(machine.switches)
    return lines


def problems(machine: Machine) -> list[str]:
    """The problems, each with its remedy."""
    found = []
    platforms = machine.environment.get("JAX_PLATFORMS", "")
    if machine.failure:
        found.append(f"JAX does not work here. {machine.failure}")
    if machine.nvidia and machine.backend == "cpu":
        plugin = next((p for p in PLUGINS[:2] if p in machine.versions), None)
        if platforms:
            fix = f"Unset JAX_PLATFORMS={platforms} in the environment."
        elif machine.environment.get("CUDA_VISIBLE_DEVICES", "x") in ("", "-1"):
            fix = "CUDA_VISIBLE_DEVICES in the environment hides it. Unset it."
        elif plugin:
            fix = f"{plugin} is installed but found no GPU. Is the driver new enough for it?"
        else:
            fix = "pip install 'jax[cuda13]', or 'jax[cuda12]' for an older driver."
        found.append(f"There is an NVIDIA GPU, but JAX computes on the CPU. {fix}")
    if machine.backend == "cpu" and len(machine.devices) < machine.cores:
        steered = [k for k in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS") if k in machine.environment]
        fix = f"Unset {' and '.join(steered)}." if steered else "Something started JAX too early."
        found.append(
            f"JAX has {len(machine.devices)} CPU device{'s' * (len(machine.devices) != 1)} for "
            f"{machine.cores} cores, so a sweep leaves cores idle. {fix}"
        )
    if machine.quota < 0.9 * machine.cores:
        devices = max(1, round(machine.quota))
        found.append(
            f"The container allows the time of {machine.quota:g} cores, but shows "
            f"{machine.cores}. Sweeps run more smoothly with --devices {devices}."
        )
    jax, jaxlib = (machine.versions.get(name, "") for name in ("jax", "jaxlib"))
    if jax.split(".")[:2] != jaxlib.split(".")[:2]:
        found.append(f"jax {jax} and jaxlib {jaxlib} differ: pip install -U jax jaxlib.")
    slow = {"jax_disable_jit", "jax_debug_nans", "jax_debug_infs"} & {*machine.switches}
    if slow:
        found.append(f"{', '.join(sorted(slow))} is on, which makes everything slow. Unset it.")
    return found


def _device(device: object) -> str:
    kind = getattr(device, "device_kind", str(device))
    memory_stats = getattr(device, "memory_stats", None)
    stats: dict[str, int] = (memory_stats() if memory_stats else None) or {}
    limit = stats.get("bytes_limit", 0)
    return f"{kind} ({limit / 2**30:.0f} GiB)" if limit else str(kind)


def has_nvidia() -> bool:
    """Whether the kernel driver or the command-line tool for NVIDIA GPUs is present."""
    driver = Path("/proc/driver/nvidia/gpus")
    gpus = driver.is_dir() and any(driver.iterdir())
    return gpus or Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def _quota() -> float:
    """CPU time that the control group allows, in cores; inf if it sets no limit."""
    try:
        allowed, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float(allowed) / float(period)
    except (OSError, ValueError):
        return float("inf")
