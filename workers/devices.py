"""Which devices this machine has for a worker each: its GPUs as NVML names them, or the CPU."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pynvml

from shared.errors import DreamqError

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's memory limit stands: cgroup v2, v1."""


class DeviceNotFound(DreamqError):
    """This machine has no such device."""

    code = "device_not_found"


@dataclass(frozen=True)
class Device:
    """One GPU, one MIG part of a GPU, or the CPU (which has no `uuid`)."""

    name: str
    uuid: str | None
    memory_bytes: int

    @property
    def label(self) -> str:
        """A short name that tells the devices of one machine apart: `cpu`, `gpu-1f2e3d4c`, `mig-...`."""
        if self.uuid is None:
            return "cpu"
        kind, _, rest = self.uuid.partition("-")
        return f"{kind}-{rest[:8]}".lower()

    def as_dict(self) -> dict[str, Any]:
        """The device as a worker registers it."""
        return asdict(self)


def find_devices(environment: Mapping[str, str] | None = None, nvml: Any = pynvml) -> list[Device]:
    """The GPUs that `CUDA_VISIBLE_DEVICES` leaves to us, in the order of the PCI bus; the CPU where there is none."""
    environment = os.environ if environment is None else environment
    gpus = visible(find_gpus(nvml), environment.get("CUDA_VISIBLE_DEVICES"))
    return gpus or [cpu()]


def find_gpus(nvml: Any = pynvml) -> list[Device]:
    """Every GPU of this machine; of one that is split, its MIG parts. Empty without GPU or driver."""
    with session(nvml) as open_:
        if not open_:
            return []
        gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [describe(part, nvml) for gpu in gpus for part in parts(gpu, nvml)]


@contextmanager
def session(nvml: Any) -> Iterator[bool]:
    """NVML between its start and its end; False where it cannot start (no GPU, no driver)."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        nvml.nvmlShutdown()


def parts(gpu: Any, nvml: Any) -> list[Any]:
    """What a process can be given of one GPU: the whole, or its MIG parts where it is split."""
    try:
        split, _pending = nvml.nvmlDeviceGetMigMode(gpu)
    except nvml.NVMLError:  # a GPU that cannot be split
        return [gpu]
    if not split:
        return [gpu]
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
        except nvml.NVMLError:  # this place is empty
            continue
    return found


def describe(handle: Any, nvml: Any) -> Device:
    try:
        memory_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:  # a GPU that shares the machine's memory has none of its own to tell
        memory_bytes = psutil.virtual_memory().total
    return Device(
        name=text(nvml.nvmlDeviceGetName(handle)),
        uuid=text(nvml.nvmlDeviceGetUUID(handle)),
        memory_bytes=memory_bytes,
    )


def text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes in older releases of nvidia-ml-py


def visible(gpus: Sequence[Device], names: str | None) -> list[Device]:
    """The GPUs that a value of `CUDA_VISIBLE_DEVICES` names, read as CUDA reads it.

    Indices count along the PCI bus, UUIDs may be cut short, and the first name that fits nothing (such as -1)
    ends the list. None (not set) leaves all of them; an empty value leaves none.
    """
    if names is None:
        return list(gpus)
    chosen: list[Device] = []
    for name in names.split(","):
        found = find(gpus, name.strip())
        if found is None or found in chosen:
            break
        chosen.append(found)
    return chosen


def find(gpus: Sequence[Device], name: str) -> Device | None:
    """The GPU of this index, or whose UUID begins so."""
    if name.isdecimal():
        return gpus[int(name)] if int(name) < len(gpus) else None
    fits = [gpu for gpu in gpus if name and gpu.uuid is not None and gpu.uuid.startswith(name)]
    return fits[0] if len(fits) == 1 else None


def choose(devices: Sequence[Device], wanted: str) -> list[Device]:
    """The devices that `--devices` names: `all`, or indices and UUIDs separated by commas; `cpu` is always there.

    Raises:
        DeviceNotFound: a name fits none of the devices; the message lists them.
    """
    if wanted == "all":
        return list(devices)
    gpus = [device for device in devices if device.uuid is not None]
    chosen: list[Device] = []
    for name in wanted.split(","):
        found = cpu() if name.strip() == "cpu" else find(gpus, name.strip())
        if found is None:
            there = ", ".join(
                ["cpu", *(f"{index} = {gpu.uuid} ({gpu.name})" for index, gpu in enumerate(gpus))]
            )
            raise DeviceNotFound(f"no device {name.strip()!r} here; there are: {there}")
        if found.uuid is not None and found in chosen:
            raise DeviceNotFound(f"device {name.strip()!r} is named twice; a GPU serves one worker")
        chosen.append(found)
    return chosen


def cpu() -> Device:
    """This machine's CPU, with the memory that the machine, or the container we run in, grants us."""
    limits = [
        int(file.read_text()) for file in CGROUP_LIMITS if file.exists() and file.read_text().strip() != "max"
    ]
    return Device(
        name=f"CPU ({platform.machine()})",
        uuid=None,
        memory_bytes=min([psutil.virtual_memory().total, *limits]),
    )
