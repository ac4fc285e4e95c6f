"""HTTP in, HTTP out. Knows nothing of tensors; talks to an engine in another process."""
