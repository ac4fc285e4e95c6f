"""The model computes what transformers computes: same weights, same logits."""
import json

import pytest
import torch

from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tinyllm.model.batch_inputs import AttentionInputs, RaggedAttention
from tinyllm.model.config_reader import BUNDLED
from tinyllm.model.rope_scaling import RopeConfig, get_rope
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.weights import load_model, save_model

LENGTHS = [1, 17, 5, 64]
SHAPE = dict(vocab_size=199, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)

CASES = {
    "llama2": (LlamaForCausalLM, LlamaConfig, dict(num_key_value_heads=4)),
    "llama-grouped": (LlamaForCausalLM, LlamaConfig, {}),
    "llama-tied": (LlamaForCausalLM, LlamaConfig, dict(tie_word_embeddings=True)),
    "llama-one-kv-head": (LlamaForCausalLM, LlamaConfig, dict(num_key_value_heads=1)),
    "llama-biases": (LlamaForCausalLM, LlamaConfig, dict(attention_bias=True, mlp_bias=True)),
    "llama-wide-heads": (LlamaForCausalLM, LlamaConfig, dict(head_dim=32)),
    "llama-rope-linear": (LlamaForCausalLM, LlamaConfig, dict(
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.5))),
    "llama-rope-llama3": (LlamaForCausalLM, LlamaConfig, dict(rope_parameters=LLAMA3)),
    "llama-rope-yarn": (LlamaForCausalLM, LlamaConfig, dict(rope_parameters=YARN)),
    "mistral": (MistralForCausalLM, MistralConfig, dict(sliding_window=None)),
    "mistral-narrow-heads": (MistralForCausalLM, MistralConfig, dict(sliding_window=None, head_dim=8)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen2-tied-yarn": (Qwen2ForCausalLM, Qwen2Config, dict(tie_word_embeddings=True, rope_parameters=YARN)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, dict(head_dim=32)),
    "qwen3-tied-biased": (Qwen3ForCausalLM, Qwen3Config, dict(
        head_dim=16, tie_word_embeddings=True, attention_bias=True)),
}


def make(case, **more):
    """A random transformers model; its norms and biases are random too, so that none can be left out."""
    model_class, config_class, special = CASES[case]
    torch.manual_seed(len(case))
    model = model_class(config_class(**{**SHAPE, **special, **more})).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    return model


def ours(model, sequences):
    """The logits of several sequences, laid end to end in one call."""
    inputs = AttentionInputs.from_lengths([len(s) for s in sequences])
    with torch.no_grad():
        return model.logits(model(torch.cat(sequences), inputs))


def theirs(model, sequences):
    with torch.no_grad():
        return torch.cat([model(s[None]).logits[0].float() for s in sequences])


def random_sequences(vocab_size, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, vocab_size, (n,), generator=generator) for n in lengths]


def assert_same_logits(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_logits_of_a_ragged_batch_equal_those_of_transformers(case, tmp_path):
    reference = make(case)
    reference.save_pretrained(tmp_path)
    sequences = random_sequences(SHAPE["vocab_size"])
    assert_same_logits(ours(load_model(tmp_path), sequences), theirs(reference, sequences))


def test_a_checkpoint_in_several_files_gives_the_same_logits(tmp_path):
    reference = make("qwen3")
    reference.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    sequences = random_sequences(SHAPE["vocab_size"])
    assert_same_logits(ours(load_model(tmp_path), sequences), theirs(reference, sequences))


@pytest.mark.parametrize("case", ["llama-rope-llama3", "llama-rope-yarn", "llama-rope-linear", "qwen2"])
def test_the_older_spelling_of_the_configuration_means_the_same(case, tmp_path):
    reference = make(case)
    reference.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = {"type": rope.pop("rope_type"), **rope} if case != "qwen2" else None
    raw["torch_dtype"] = raw.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(raw))
    sequences = random_sequences(SHAPE["vocab_size"])
    assert_same_logits(ours(load_model(tmp_path), sequences), theirs(reference, sequences))


@pytest.mark.parametrize("numbers", [
    {}, {"truncate": False}, {"attention_factor": 1.25}, {"mscale": 2.0},
    {"mscale": 1.0, "mscale_all_dim": 0.5},
    {"beta_fast": 16.0, "beta_slow": 2.0}, {"factor": 32.0, "rope_theta": 1e6}, {"factor": 0.5},
    {"original_max_position_embeddings": 4096},
], ids=str)
def test_yarn_angles_equal_those_of_transformers(numbers):
    spelled = {**YARN, **numbers}
    reference = make("llama-rope-yarn", rope_parameters=dict(spelled), head_dim=64)
    positions = torch.arange(256)
    cos, sin = reference.model.rotary_emb(torch.zeros(1), positions[None])
    theta = spelled.pop("rope_theta")
    config = RopeConfig(theta, spelled.pop("rope_type"), **spelled)
    for mine, full in zip(get_rope(config, 64)(positions), (cos, sin), strict=True):
        torch.testing.assert_close(mine, full[0, :, :32], atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [
    ModelConfig(199, 64, 96, 2, 4, 2, 16, 256, eos_token_ids=(0,), tie_word_embeddings=True),
    ModelConfig(199, 64, 96, 2, 4, 2, 32, 256, rms_norm_eps=1e-5, eos_token_ids=(0, 3), bos_token_id=1),
    ModelConfig(199, 64, 96, 2, 4, 2, 16, 256, attention_bias=True, attention_output_bias=True,
                mlp_bias=True),
    ModelConfig(199, 64, 96, 2, 4, 4, 16, 256, attention_bias=True),
    ModelConfig(199, 64, 96, 2, 4, 1, 32, 256, qk_norm=True),
    ModelConfig(199, 64, 96, 2, 4, 2, 16, 256, rope=RopeConfig(
        5e5, "llama3", factor=8.0, original_max_position_embeddings=32)),
    ModelConfig(199, 64, 96, 2, 4, 2, 16, 256, rope=RopeConfig(
        1e4, "yarn", factor=4.0, original_max_position_embeddings=64, attention_factor=1.2, truncate=False)),
    ModelConfig(199, 64, 96, 2, 4, 2, 16, 256, rope=RopeConfig(1e4, "linear", factor=2.0)),
], ids=lambda c: f"{c.rope.scaling}-{c.num_key_value_heads}-{c.head_dim}-{c.qk_norm}-{c.attention_bias}")
def test_a_saved_model_loads_in_transformers_and_here(config, tmp_path):
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    save_model(model, tmp_path, dtype=torch.float32)
    reference, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    again = load_model(tmp_path)
    assert again.config == config
    sequences = random_sequences(199)
    assert_same_logits(ours(model, sequences), theirs(reference.float().eval(), sequences))
    torch.testing.assert_close(ours(again, sequences), ours(model, sequences), atol=0, rtol=0)


def test_models_are_saved_in_bfloat16_unless_told_otherwise(tmp_path):
    model = Transformer(ModelConfig(199, 64, 96, 2, 4, 2, 16, 256))
    save_model(model, tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers 4 refuses a file that does not say so
    kept = load_model(tmp_path, dtype="bfloat16").embed_tokens.weight
    assert torch.equal(kept, model.embed_tokens.weight.bfloat16())
    assert load_model(tmp_path).embed_tokens.weight.dtype == torch.float32


def test_bfloat16_stays_close_to_transformers(tmp_path):
    reference = make("qwen3").bfloat16()
    reference.save_pretrained(tmp_path)
    sequences = random_sequences(SHAPE["vocab_size"])
    mine, full = ours(load_model(tmp_path, dtype="bfloat16"), sequences), theirs(reference, sequences)
    assert mine.dtype == torch.float32
    assert (mine - full).abs().max() < 0.05 * full.abs().max()


def test_training_can_compile_the_whole_model():
    model = Transformer(ModelConfig(199, 64, 96, 2, 4, 2, 16, 256, tie_word_embeddings=True))
    ids, inputs = torch.arange(48) % 199, AttentionInputs.from_lengths([16, 16, 16])

    def loss():
        return torch.nn.functional.cross_entropy(model.logits(model(ids, inputs)), ids)

    loss().backward()
    plain = model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    torch.compile(loss, fullgraph=True, backend="aot_eager")().backward()
    torch.testing.assert_close(model.embed_tokens.weight.grad, plain)


def test_the_reference_backend_refuses_a_cache():
    q, kv = torch.zeros(2, 4, 8), torch.zeros(2, 2, 8)
    with pytest.raises(ValueError, match="no cache"):
        RaggedAttention().attend(q, kv, kv, (kv, kv), AttentionInputs.from_lengths([2]), 1.0)


@pytest.mark.parametrize("name", ["fable", "fable-draft"])
def test_the_bundled_models_give_the_logits_of_transformers(name):
    model = load_model(name)
    reference = AutoModelForCausalLM.from_pretrained(BUNDLED / name, dtype=torch.float32).eval()
    sequences = random_sequences(model.config.vocab_size, [3, 200, 41])
    assert_same_logits(ours(model, sequences), theirs(reference, sequences))
