"""The kernels themselves, in Triton's language; everything here imports triton."""
