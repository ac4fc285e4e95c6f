"""Triton kernels. They know tensors and nothing else; Triton is imported on first use."""
