"""Exit 0 when Quarto 1.9 or newer is on the PATH, 1 otherwise; say which renderer is used and why."""
import re
import shutil
import subprocess
import sys

MINIMUM = (1, 9)


def quarto_version() -> tuple[int, ...] | None:
    """The version on the PATH, or None when there is none or it does not answer."""
    if not (quarto := shutil.which("quarto")):
        return None
    answer = subprocess.run([quarto, "--version"], capture_output=True, text=True)
    numbers = re.findall(r"\d+", answer.stdout)
    return tuple(int(n) for n in numbers[:3]) if answer.returncode == 0 and numbers else None


if __name__ == "__main__":
    version = quarto_version()
    written = ".".join(map(str, version)) if version else "not found"
    use = bool(version) and version >= MINIMUM
    choice = "rendering with Quarto" if use else "1.9 or newer is needed, so the press renders (book/press)"
    print(f"[book] Quarto {written}: {choice}")
    sys.exit(not use)
