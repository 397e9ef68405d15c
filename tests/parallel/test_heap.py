"""The heap that keeps its memory: a block that is written again meets no page fault."""

import subprocess
import sys

import pytest

from zoo.parallel import heap

FAULTS = """
import ctypes, resource, threading
from zoo.parallel.heap import keep_heap

def faults():
    libc.free(filled())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    libc.free(filled())
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def filled():
    block = libc.malloc(SIZE)
    ctypes.memset(block, 1, SIZE)
    return block

def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(faults()))
    thread.start()
    thread.join()
    return found[0]

SIZE = 2**26
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
kept = keep_heap()
print(int(kept), faults(), in_thread())
"""
PAGES = 2**26 // 4096


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are Linux's")
@pytest.mark.parametrize("own, kept", [({}, 1), ({"MALLOC_ARENA_MAX": "2"}, 0), ({"JAX_PLATFORMS": "cuda,cpu"}, 0)])
def test_a_block_is_written_again_without_page_faults_unless_the_user_allocates_otherwise(own, kept, monkeypatch):
    if heap.platform.libc_ver()[0] != "glibc":
        pytest.skip("the allocator of glibc is meant")
    for name in heap.OWN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    said, *faults = map(int, done.stdout.split())
    assert said == kept
    assert all((found < PAGES / 50) == bool(kept) for found in faults)
