"""tinyllm: a book on LLM inference that is also the engine it explains."""

__version__ = "0.1.0"

_WHERE = {
    "LLM": "tinyllm.llm",
    "EngineArgs": "tinyllm.engine.args",
    "SamplingParams": "tinyllm.engine.params",
    "RequestOutput": "tinyllm.engine.output_processor",
    "CompletionOutput": "tinyllm.engine.output_processor",
}
__all__ = ["LLM", "CompletionOutput", "EngineArgs", "RequestOutput", "SamplingParams", "__version__"]


def __getattr__(name):
    """`tinyllm.LLM` is found when it is asked for: importing the package alone needs no torch."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__():
    """What a shell completes: the lazy names too."""
    return sorted({*globals(), *__all__})
