"""Which devices a machine has, with an NVML that tells of GPUs this machine need not have."""

from types import SimpleNamespace

import psutil
import pytest

from workers.devices import Device, DeviceNotFound, choose, cpu, find_devices, find_gpus, visible

GIB = 2**30
A = Device("NVIDIA H100 80GB HBM3", "GPU-aaaaaaaa-1111-2222-3333-444444444444", 80 * GIB)
B = Device("NVIDIA H100 80GB HBM3", "GPU-bbbbbbbb-1111-2222-3333-444444444444", 80 * GIB)
C = Device("NVIDIA T4", "GPU-cccccccc-1111-2222-3333-444444444444", 16 * GIB)
PART_1 = Device("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "MIG-11111111-aaaa-bbbb-cccc-dddddddddddd", 40 * GIB)
PART_2 = Device("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "MIG-22222222-aaaa-bbbb-cccc-dddddddddddd", 40 * GIB)


class Nvml:
    """The calls of pynvml that we make, answering for the GPUs it is given: (GPU, its MIG parts or None)."""

    class NVMLError(Exception):
        pass

    def __init__(self, *gpus, driver=True, shares_memory=()):
        self.gpus = gpus
        self.driver = driver
        self.shares_memory = shares_memory
        self.open = False

    def nvmlInit(self):
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")
        self.open = True

    def nvmlShutdown(self):
        self.open = False

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.gpus[index][0]

    def nvmlDeviceGetMigMode(self, gpu):
        parts = dict(self.gpus)[gpu]
        if parts is None:
            raise self.NVMLError("Not Supported")
        return bool(parts), bool(parts)

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu):
        return 7  # an H100 has seven places, whatever is made of them

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu, index):
        parts = dict(self.gpus)[gpu]
        if index >= len(parts):
            raise self.NVMLError("Not Found")
        return parts[index]

    def nvmlDeviceGetName(self, gpu):
        return gpu.name

    def nvmlDeviceGetUUID(self, gpu):
        return gpu.uuid.encode()  # as older releases of nvidia-ml-py

    def nvmlDeviceGetMemoryInfo(self, gpu):
        if gpu in self.shares_memory:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(total=gpu.memory_bytes)


def test_every_gpu_of_the_machine_is_found_in_the_order_of_the_bus():
    nvml = Nvml((A, []), (B, []), (C, None))

    assert find_devices({}, nvml) == [A, B, C]
    assert not nvml.open


def test_without_a_driver_or_a_gpu_the_cpu_is_the_device():
    assert find_devices({}, Nvml(driver=False)) == [cpu()]
    assert find_devices({}, Nvml()) == [cpu()]


def test_this_machine_is_asked_through_the_real_library_without_an_error():
    assert find_devices({})


def test_a_gpu_that_is_split_counts_as_its_parts():
    assert find_gpus(Nvml((A, [PART_1, PART_2]), (B, []))) == [PART_1, PART_2, B]


def test_a_gpu_without_memory_of_its_own_counts_with_the_machines():
    assert find_gpus(Nvml((C, None), shares_memory=[C]))[0].memory_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (None, [A, B, C]),
        ("", []),
        ("-1", []),
        ("1", [B]),
        ("2,0", [C, A]),
        (" 1 , 0 ", [B, A]),
        ("0,-1,1", [A]),  # CUDA reads up to the first name that fits nothing
        ("0,7,1", [A]),
        ("0,0", [A]),
        (B.uuid, [B]),
        ("GPU-bb", [B]),
        ("GPU-", []),  # fits several, so it names none
        (f"{C.uuid},{A.uuid}", [C, A]),
    ],
)
def test_cuda_visible_devices_set_from_outside_is_read_as_cuda_reads_it(value, left):
    assert visible([A, B, C], value) == left


def test_a_mig_part_is_named_by_its_uuid():
    nvml = Nvml((A, [PART_1, PART_2]))

    assert find_devices({"CUDA_VISIBLE_DEVICES": PART_2.uuid}, nvml) == [PART_2]


def test_gpus_hidden_from_outside_leave_the_cpu():
    assert find_devices({"CUDA_VISIBLE_DEVICES": "-1"}, Nvml((A, []))) == [cpu()]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("all", [A, B]),
        ("0,1", [A, B]),
        ("1", [B]),
        (A.uuid, [A]),
        ("cpu", [cpu()]),
        ("0,cpu", [A, cpu()]),
        ("cpu,cpu", [cpu(), cpu()]),
    ],
)
def test_devices_are_chosen_by_index_uuid_or_as_the_cpu(wanted, chosen):
    assert choose([A, B], wanted) == chosen


@pytest.mark.parametrize("wanted", ["2", "gpu0", "", "GPU-ffff", "0,9"])
def test_a_device_that_is_not_here_is_refused_with_a_list_of_those_that_are(wanted):
    with pytest.raises(DeviceNotFound, match=r"GPU-aaaaaaaa.*GPU-bbbbbbbb"):
        choose([A, B], wanted)


def test_one_gpu_is_not_given_to_two_workers():
    with pytest.raises(DeviceNotFound, match="twice"):
        choose([A, B], f"0,{A.uuid}")


def test_the_labels_of_devices_tell_them_apart():
    assert [device.label for device in (A, PART_1, cpu())] == ["gpu-aaaaaaaa", "mig-11111111", "cpu"]


def test_a_containers_memory_limit_counts_before_the_machines(tmp_path, monkeypatch):
    limit, unlimited = tmp_path / "memory.max", tmp_path / "no.max"
    limit.write_text(f"{2 * GIB}\n")
    unlimited.write_text("max\n")
    monkeypatch.setattr("workers.devices.CGROUP_LIMITS", (limit, unlimited, tmp_path / "absent"))

    assert cpu().memory_bytes == 2 * GIB
