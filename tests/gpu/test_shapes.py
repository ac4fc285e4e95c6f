"""Every published shape of the supported families says on the card what `transformers` says.

Two layers of random weights, everything else as published, but for the widest models' inner width and vocabulary.
The memory for the cache is found as a user's engine finds it.
"""
import copy
import random
import tempfile

import pytest
import torch

from tinyllm.llm import LLM, SamplingParams

transformers = pytest.importorskip("transformers")
TIE = 1e-4

# name: family, query heads, key/value heads, head size, width, inner width, vocabulary, one table for input and output
SHAPES = {
    "SmolLM2-135M": ("Llama", 9, 3, 64, 576, 1536, 49_152, True),
    "SmolLM2-360M": ("Llama", 15, 5, 64, 960, 2560, 49_152, True),
    "SmolLM2-1.7B": ("Llama", 32, 32, 64, 2048, 8192, 49_152, True),
    "TinyLlama-1.1B": ("Llama", 32, 4, 64, 2048, 5632, 32_000, False),
    "Llama-2-7B": ("Llama", 32, 32, 128, 4096, 11_008, 32_000, False),
    "Llama-2-13B": ("Llama", 40, 40, 128, 5120, 13_824, 32_000, False),
    "Llama-3.2-1B": ("Llama", 32, 8, 64, 2048, 8192, 128_256, True),
    "Llama-3.2-3B": ("Llama", 24, 8, 128, 3072, 8192, 128_256, True),
    "Llama-3.1-8B": ("Llama", 32, 8, 128, 4096, 14_336, 128_256, False),
    "Llama-3.1-70B": ("Llama", 64, 8, 128, 8192, 8192, 32_000, False),
    "Mistral-7B": ("Mistral", 32, 8, 128, 4096, 14_336, 32_000, False),
    "Mistral-Nemo": ("Mistral", 32, 8, 128, 5120, 14_336, 32_000, False),
    "Yi-34B": ("Llama", 56, 8, 128, 7168, 8192, 64_000, False),
    "InternLM2-20B": ("Llama", 48, 8, 128, 6144, 8192, 32_000, False),
    "Falcon3-1B": ("Llama", 8, 4, 256, 2048, 8192, 131_072, False),
    "Falcon3-7B": ("Llama", 12, 4, 256, 3072, 9216, 131_072, False),
    "Phi-3-mini": ("Llama", 32, 32, 96, 3072, 8192, 32_064, False),
    "OpenLLaMA-3B": ("Llama", 32, 32, 100, 3200, 8640, 32_000, False),
    "heads of 80": ("Llama", 32, 32, 80, 2560, 6912, 50_304, False),
    "one key/value head": ("Llama", 8, 1, 256, 2048, 8192, 32_000, True),
    "sixteen to one": ("Llama", 32, 2, 128, 4096, 8192, 65_024, False),
    "Qwen2.5-0.5B": ("Qwen2", 14, 2, 64, 896, 4864, 151_936, True),
    "Qwen2.5-1.5B": ("Qwen2", 12, 2, 128, 1536, 8960, 151_936, True),
    "Qwen2.5-3B": ("Qwen2", 16, 2, 128, 2048, 11_008, 151_936, True),
    "Qwen2.5-7B": ("Qwen2", 28, 4, 128, 3584, 18_944, 152_064, False),
    "Qwen2.5-14B": ("Qwen2", 40, 8, 128, 5120, 13_824, 32_064, False),
    "Qwen3-0.6B": ("Qwen3", 16, 8, 128, 1024, 3072, 151_936, True),
    "Qwen3-1.7B": ("Qwen3", 16, 8, 128, 2048, 6144, 151_936, True),
    "Qwen3-4B": ("Qwen3", 32, 8, 128, 2560, 9728, 151_936, True),
    "Qwen3-14B": ("Qwen3", 40, 8, 128, 5120, 17_408, 32_064, False),
    "Qwen3-32B": ("Qwen3", 64, 8, 128, 5120, 8192, 32_064, False),
}


def build(name: str):
    """The model by `transformers`, on the card: numbers of bfloat16, so that a small file holds them exactly."""
    family, heads, kv_heads, size, width, inner, vocab, tied = SHAPES[name]
    config = getattr(transformers, f"{family}Config")(
        vocab_size=vocab, hidden_size=width, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=size, max_position_embeddings=2304, tie_word_embeddings=tied,
        bos_token_id=None, eos_token_id=0, pad_token_id=None)
    torch.manual_seed(len(name))
    with torch.device("cuda"):
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    if family == "Qwen2":  # new models have biases of zero
        for layer in model.model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                torch.nn.init.normal_(part.bias, std=0.5)
    with torch.no_grad():
        for parameter in model.parameters():  # not the angles' frequencies, which a cast of the whole would round
            parameter.copy_(parameter.bfloat16())
    return model


def gaps(model, outputs):
    """For each answer, by how much each token's logit is below the largest: 0 for the greedy token."""
    for output in outputs:
        said, ids = output.outputs[0].token_ids, output.prompt_token_ids + output.outputs[0].token_ids
        with torch.inference_mode():
            logits = model(torch.tensor([ids], device="cuda"), logits_to_keep=len(said) + 1).logits[0, :-1].float()
        yield logits.max(1).values - logits.gather(1, torch.tensor(said, device="cuda")[:, None])[:, 0]


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_shape_says_what_transformers_says(name):
    with tempfile.TemporaryDirectory() as folder:  # gone at once: all of them together fill a disk
        model = build(name)
        copy.deepcopy(model).bfloat16().save_pretrained(folder)
        check(name, model, folder)


def check(name, model, folder):
    """Both number types, alone and in company, in the cache that the engine finds room for."""
    rng = random.Random(0)
    lengths = (1, 2, 3, 15, 16, 17, 33, 100, 257, 700, 1999)
    prompts = [{"prompt_token_ids": [rng.randrange(1, SHAPES[name][6]) for _ in range(n)]} for n in lengths]
    greedy = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    for dtype, most in (("float32", TIE), ("bfloat16", 0.25)):
        llm = LLM(folder, dtype=dtype, device="cuda", max_num_seqs=16, skip_tokenizer_init=True)
        together = llm.generate(prompts, greedy, use_tqdm=False)
        alone = llm.generate(prompts[-2:], greedy, use_tqdm=False)
        below = torch.cat(list(gaps(model, together + alone)))
        assert below.max() < most, f"{dtype}: a token is {below.max():.2g} below the largest logit"
        assert (below > 0).float().mean() <= (1e-3 if dtype == "float32" else 0.2)
        del llm
        torch.cuda.empty_cache()
