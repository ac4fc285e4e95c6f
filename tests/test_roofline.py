"""What roofline.py counts, against models that exist, and the kernels of ceilings.py."""
import os
import subprocess
import sys

import pytest
from tinyllm.measure.ceilings import SPECS, hardware
from tinyllm.measure.roofline import (Work, attention, decode_work, dtype_name, matmul, prefill_work, seconds,
                                      step_work, total)

torch = pytest.importorskip("torch")

KERNELS = """
import torch
from tinyllm.measure.ceilings import triton_kernels
read, chain = triton_kernels()
x, out = torch.arange(4 * 64, dtype=torch.int32), torch.zeros(3 * 64, dtype=torch.int32)
read[(3,)](x, out, 4, 5, BLOCK=64)
want = torch.zeros(3, 64, dtype=torch.int32)
for program in range(3):
    for i in range(5):
        want[program] ^= x.view(4, 64)[(program + 3 * i) % 4]
assert torch.equal(out.view(3, 64), want)
a, b = torch.arange(100.0), torch.full((128,), 7.0)
chain[(2,)](a, b, 100, STEPS=3, BLOCK=64)
torch.testing.assert_close(b[:100], a * 0.999**3)
assert (b[100:] == 7).all()
"""
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tinyllm.measure.ceilings import triton_kernels
read, chain = triton_kernels()
kinds = [(read, {"x": "*i32", "out": "*i32", "blocks": "i32", "rounds": "i32"}, {"BLOCK": 2048}),
         (chain, {"x": "*fp32", "y": "*fp32", "n": "i32"}, {"STEPS": 4, "BLOCK": 1024})]
for kernel, types, constants in kinds:
    source = ASTSource(kernel, types | {name: "constexpr" for name in constants}, constexprs=constants)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    assert ("ld.global.cg" in ptx) == (kernel is read)  # past the first cache, or it is not L2 that is measured
"""


def test_a_step_reads_every_weight_of_a_real_model_once_but_for_its_norms():
    from tinyllm.model.weights import load_model

    model = load_model("fable")  # the head is the table, so the table is read whole, once
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    c = model.config
    kv = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim
    work = total(decode_work(c, 3, 100, dtype="float32"))
    assert work.bytes == 4 * (matrices + 3 * c.hidden_size + 3 * 100 * kv)
    assert total(step_work(c, [(8, 8)], sampled=0)).bytes < total(step_work(c, [(8, 8)])).bytes


def test_a_prompt_in_chunks_does_the_same_operations_and_reads_weights_again():
    from tinyllm.model.transformer import ModelConfig

    c = ModelConfig(1000, 64, 128, 2, 4, 2, 16, 512)
    whole = total(step_work(c, [(100, 100)], sampled=1))
    chunks = total(step_work(c, [(60, 60)], sampled=0)) + total(prefill_work(c, 40, past=60))
    assert chunks.flops == whole.flops
    assert chunks.bytes > whole.bytes and chunks.written == whole.written


def test_requests_share_weights_and_not_caches():
    from tinyllm.model.transformer import ModelConfig

    c = ModelConfig(1000, 64, 128, 2, 4, 2, 16, 512)
    one, many = decode_work(c, 1, 100), decode_work(c, 10, 100)
    assert many["gate and up"].read == one["gate and up"].read
    assert many["attention"].bytes == 10 * one["attention"].bytes
    assert decode_work(c, 1, 100, kv_dtype="float8")["attention"].bytes * 2 == one["attention"].bytes


def test_the_longer_clock_counts_and_parts_follow_each_other():
    chip = SPECS["H100"]
    assert seconds(Work(flops=989e12, read=1), chip) == 1 and seconds(Work(flops=1, read=3.35e12), chip) == 1
    parts = {"a": Work(flops=989e12), "b": Work(read=3.35e12)}
    assert seconds(parts, chip) == 2 and seconds(total(parts), chip) == 1
    assert matmul(4, 8, 16).bytes == 2 * (4 * 8 + 8 * 16 + 4 * 16)
    assert attention(5, 5, 4, 2, 16).flops == 4 * 4 * 16 * (1 + 2 + 3 + 4 + 5)


def test_what_is_not_known_is_refused_with_what_is():
    with pytest.raises(ValueError, match="H100, H200"):
        hardware("NVIDIA H100 PCIe")  # has a slower memory than the one that is stored
    with pytest.raises(ValueError, match="no arithmetic for dtype 'int4'"):
        dtype_name("int4")
    with pytest.raises(ValueError, match="no float8 matrix rate is known for A100"):
        hardware("A100").rate("float8")
    assert hardware("NVIDIA H200").rate(torch.float16) == hardware("H200").rate("bfloat16")


def test_the_arithmetic_needs_no_torch():
    code = ("import sys; sys.modules['torch'] = None\n"
            "from tinyllm.measure import ceilings; from tinyllm.measure.roofline import matmul; "
            "print(matmul(1, 2, 3).flops)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "12", done.stderr


@pytest.mark.parametrize(("code", "interpret"), [(KERNELS, "1"), (COMPILED, "0")], ids=["interpreted", "compiled"])
def test_measuring_kernels_are_right_and_compile_for_hopper(tmp_path, code, interpret):
    pytest.importorskip("triton")
    env = os.environ | {"TRITON_INTERPRET": interpret, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
