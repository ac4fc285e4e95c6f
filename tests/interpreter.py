"""Triton's interpreter, for processes that do nothing else: quicker, and for threads that take turns."""
import threading

from triton.runtime import interpreter


def hurry(look_for_overflow: bool = False) -> None:
    """Do without what takes half of the interpreter's time: it patches some hundred functions of the language anew for
    each launch and each call of a helper from a kernel, and it looks for overflow at each addition of integers (which
    kernel_checks.py lets it do)."""
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=look_for_overflow)
    patch, done = interpreter._patch_lang, set()

    class Kept:
        restore = staticmethod(lambda: None)

    def patch_unless_done(function):
        if id(function.__globals__) not in done:
            done.add(id(function.__globals__))
            patch(function)
        return Kept

    interpreter._patch_lang = patch_unless_done


def let_threads_take_turns() -> None:
    """The interpreter serves one thread at a time; ranks meet between kernels, never inside one."""
    launch, turn = interpreter.GridExecutor.__call__, threading.Lock()

    def in_turn(self, *args, **options):
        with turn:
            return launch(self, *args, **options)

    interpreter.GridExecutor.__call__ = in_turn
