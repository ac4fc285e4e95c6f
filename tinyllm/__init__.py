"""tinyllm: a book on LLM inference that is also the engine it explains."""

__version__ = "0.1.0"
