#!/usr/bin/env python3
"""What `cargo bench -p whimbrel-store` measures, by PyTorch's Distributed Checkpoint: a state of float32 tensors saved
to a folder behind the program's back, and loaded again.

    python3 store/benches/dcp.py [MIB] [FOLDER]       # 1024 MiB in a temporary folder

Needs nothing but torch. One process; the same sizes of tensors as the Rust benchmark. "blocked" is how long `async_save`
holds up its caller, which is what training would wait; "save" is until the checkpoint is complete. Best of three, the
files synced to the disk as DCP does by default.
"""

import os
import resource
import shutil
import sys
import tempfile
import time

TIMES = 3
LAYERS = 12


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    mebibytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    parent = sys.argv[2] if len(sys.argv) > 2 else None
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "0")

    import torch
    import torch.distributed
    import torch.distributed.checkpoint as dcp

    # `async_save` wants a process group with a CPU backend, of one process here.
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)

    elements = (mebibytes << 20) // (4 * LAYERS)
    state = {f"layer.{layer:02}": torch.rand(elements) for layer in range(LAYERS)}
    size = 4 * LAYERS * elements
    print(f"torch {torch.__version__}, {mebibytes} MiB, {peak_mib():.0f} MiB resident before")

    best = {}

    def keep(name, seconds, cpu):
        if name not in best or seconds < best[name][0]:
            best[name] = (seconds, cpu)

    for _ in range(TIMES):
        folder = tempfile.mkdtemp(dir=parent)
        try:
            start, before = time.perf_counter(), cpu_seconds()
            saving = dcp.async_save(state, checkpoint_id=folder)
            keep("blocked", time.perf_counter() - start, cpu_seconds() - before)
            saving.result()
            keep("save", time.perf_counter() - start, cpu_seconds() - before)

            loaded = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
            start, before = time.perf_counter(), cpu_seconds()
            dcp.load(loaded, checkpoint_id=folder)
            keep("load", time.perf_counter() - start, cpu_seconds() - before)
            if not all(torch.equal(state[name], loaded[name]) for name in state):
                sys.exit("the state came back with other values")
        finally:
            shutil.rmtree(folder)

    print(f"{'':<12}{'seconds':>10}{'GB/s':>10}{'CPU s/GiB':>12}")
    for name, (seconds, cpu) in best.items():
        gibibytes = size / (1 << 30)
        print(f"{name:<12}{seconds:>10.3f}{size / seconds / 1e9:>10.2f}{cpu / gibibytes:>12.2f}")
    print(f"peak memory {peak_mib():.0f} MiB")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
