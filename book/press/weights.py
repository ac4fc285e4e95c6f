"""A bundled model as scripts that a page can load from the file system.

Browsers refuse `fetch` on `file://`, so the weights travel as classic scripts, about 1 MB each, which
push to a global: the first one says what there is (configuration, tokenizer, where each tensor lies),
the others hold the bytes in base64. Matrices are int8 with one float32 scale a row, vectors float32.
The reader is `book/widgets/fable.js`. Needs numpy, but neither torch nor safetensors.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

GLOBAL = "tinyllmFable"
PIECE = 768 * 1024  # bytes of a piece before base64 makes 1 MiB of them
LIMIT = 12_000_000  # bytes of all scripts together
USES = '"needs":["fable"]'  # in the data of a widget that offers to load the model
PLACE = "assets/fable/000.js"  # the first script


def read_safetensors(path: Path) -> dict:
    """All tensors of a file as float32 arrays. Reads float32, float16 and bfloat16."""
    import numpy as np

    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        flat = content[start + first : start + last]
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (np.frombuffer(flat, "<u2").astype("<u4") << 16).view("<f4")
        elif entry["dtype"] in ("F32", "F16"):
            values = np.frombuffer(flat, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype("<f4")
        else:
            raise ValueError(f"{path}: {name} is {entry['dtype']}, which is not read here: save it as BF16")
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def quantise(matrix):
    """int8 rows and their float32 scales: the largest number of a row becomes 127 or -127."""
    import numpy as np

    scales = np.abs(matrix).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1
    return np.rint(matrix / scales[:, None]).astype("i1"), scales.astype("<f4")


def pack(tensors: dict) -> tuple[list, bytes]:
    """One row of bytes, floats first so that they lie at multiples of four, and what lies where.

    Each tensor is [name, shape, place of its values, place of its scales]; a vector has no scales.
    """
    floats, bytes_, index, places = [], [], [], [0, 0]

    def put(store: list, kind: int, array) -> int:
        store.append(array.tobytes())
        places[kind] += len(store[-1])
        return places[kind] - len(store[-1])

    for name, values in sorted(tensors.items()):
        if values.ndim == 1:
            index.append([name, list(values.shape), put(floats, 0, values), None])
        else:
            whole, scales = quantise(values)
            index.append([name, list(values.shape), put(bytes_, 1, whole), put(floats, 0, scales)])
    for entry in index:  # the bytes come after all floats
        if entry[3] is not None:
            entry[2] += places[0]
    return index, b"".join(floats + bytes_)


def read_tokenizer(path: Path) -> dict:
    """What the page's tokenizer is made from: merges as pairs of 16-bit ids in base64."""
    content = json.loads(path.read_text(encoding="utf-8"))
    vocab = content["model"]["vocab"]
    pairs = [vocab[part] for pair in content["model"]["merges"] for part in pair]
    return {
        "merges": base64.b64encode(b"".join(i.to_bytes(2, "little") for i in pairs)).decode(),
        "special_tokens": [token["content"] for token in content["added_tokens"]],
        "pattern": content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"],
    }


def scripts(model: Path) -> list[str]:
    """The scripts of the model in this folder, in order."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    index, content = pack(read_safetensors(model / "model.safetensors"))
    pieces = [content[at : at + PIECE] for at in range(0, len(content), PIECE)]
    head = {
        "config": config,
        "tokenizer": read_tokenizer(model / "tokenizer.json"),
        "tensors": index,
        "bytes": len(content),
        "pieces": len(pieces),
    }
    items = [head, *({"piece": i, "data": base64.b64encode(p).decode()} for i, p in enumerate(pieces))]
    push = f"(self.{GLOBAL}=self.{GLOBAL}||[]).push("
    made = [f"{push}{json.dumps(item, separators=(',', ':'), sort_keys=True)});\n" for item in items]
    if (size := sum(map(len, made))) > LIMIT:
        raise ValueError(f"{model}: its scripts have {size:,} bytes, the limit is {LIMIT:,}: use a smaller model")
    return made


def assets(model: Path, cache: Path) -> dict[str, bytes]:
    """The scripts by the names of their files, made once for each model."""
    sources = [model / name for name in ("config.json", "model.safetensors", "tokenizer.json")]
    key = hashlib.sha256(b"".join(p.read_bytes() for p in (*sources, Path(__file__)))).hexdigest()[:16]
    store = cache / f"weights-{model.name}-{key}.json"
    if not store.exists():
        for old in cache.glob(f"weights-{model.name}-*"):
            old.unlink(missing_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        part = store.with_suffix(".part")
        part.write_text(json.dumps(scripts(model)), encoding="utf-8")
        part.replace(store)
    made = json.loads(store.read_text(encoding="utf-8"))
    return {f"assets/{model.name}/{i:03}.js": text.encode() for i, text in enumerate(made)}
