"""Memory of large pages, kept by the process, where JAX computes on a CPU.

XLA asks for its temporary buffer, perhaps a gigabyte, at every call. The allocator of glibc takes so much from the
system each time, in pages of 4 KiB, and gives it back afterwards: a training step then spends a fifth of its time on
page faults. Here the heap keeps what it once got, and its pages are of 2 MiB.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform

# Parameters of `mallopt`, from malloc.h, and of `madvise`, from mman.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
HUGEPAGE = 14
LARGE_PAGE = 2**21
OWN_SETTINGS = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")


def keep_heap() -> bool:
    """Have this process keep its memory and use large pages; whether it does so now.

    Call it before JAX starts its threads. Nothing is changed on a machine with an accelerator, without glibc, or where
    the environment already says how to allocate. Half of the machine's memory is reserved as addresses alone: pages
    come when they are first written.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in OWN_SETTINGS) or not _only_cpu():
        return False
    libc = ctypes.CDLL(None)
    # One arena, that of the main heap, for every thread; it never maps a block apart, and never shrinks.
    for parameter, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1)):
        if not libc.mallopt(parameter, value):
            return False
    _make_pages_large(libc)
    return True


def _only_cpu() -> bool:
    """Whether JAX has nothing else to compute on, as far as can be told before it starts."""
    if os.environ.get("JAX_PLATFORMS"):
        return os.environ["JAX_PLATFORMS"] == "cpu"
    return not importlib.metadata.entry_points(group="jax_plugins") and not importlib.util.find_spec("libtpu")


def _make_pages_large(libc: ctypes.CDLL) -> None:
    """Take half of the memory as one block, advise large pages for it, and free it: the heap goes on from there."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    block = libc.malloc(size)
    if not block:  # a limit of the system: small pages then
        return
    first = -(-block // LARGE_PAGE) * LARGE_PAGE
    libc.madvise(first, (block + size - first) // LARGE_PAGE * LARGE_PAGE, HUGEPAGE)
    libc.free(block)
