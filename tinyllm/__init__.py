"""tinyllm: a book on LLM inference that is also the engine it explains."""

__version__ = "0.1.0"

_WHERE = {"LLM": "tinyllm.llm", "SamplingParams": "tinyllm.engine.params"}
__all__ = ["LLM", "SamplingParams", "__version__"]


def __getattr__(name):
    """`tinyllm.LLM` is found when it is asked for: importing the package alone needs no torch."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
