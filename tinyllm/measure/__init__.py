"""What an operation costs and how long it took: rooflines, clocks, load, benchmarks. Nothing that serves a request imports it."""
