"""The parts of `fermt_kernels.swap`: recognizing a module, standing in for it, and running both side by side."""
