"""Programmatic dependent launch: a kernel that is there before the last one has ended, and waits."""

import triton
import triton.language as tl


@triton.jit
def wait_for_last_launch(DEPENDENT: tl.constexpr):
    """Waits until all that earlier launches on the stream wrote is there, then lets the next launch come; if DEPENDENT.

    It must come before a kernel's first access to memory. Each kernel's accesses then follow the whole of the launch
    before, as without it.
    """
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
