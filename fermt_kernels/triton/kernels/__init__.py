"""The Triton kernels. Importing any of these modules imports triton."""
