"""Tensors in, tensors out: the transformer. Knows nothing of requests, nor of ranks."""
