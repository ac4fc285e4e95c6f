"""A checkpoint that is broken, or that means something else, is refused by name and never half-loaded."""
import json
import re
import shlex
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyllm import LLM, SamplingParams
from tinyllm.model.config_reader import BUNDLED, CheckpointError, read_config, resolve
from tinyllm.model.rope_scaling import RopeConfig
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.weights import load_model, save_model

CONFIG = ModelConfig(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128,
                     eos_token_ids=(0,))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_model(Transformer(CONFIG), tmp_path)
    return tmp_path


def edit(folder, drop=(), **entries):
    file = folder / "config.json"
    raw = {**json.loads(file.read_text()), **entries}
    file.write_text(json.dumps({k: v for k, v in raw.items() if k not in drop}))


def retensor(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")


def shard(folder, count=2):
    """Split the one file into several with an index."""
    tensors = load_file(folder / "model.safetensors")
    names, where = sorted(tensors), {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        save_file({n: tensors[n] for n in names[i::count]}, folder / file)
        where.update(dict.fromkeys(names[i::count], file))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


def refuses(folder, *words):
    """Loading fails with one CheckpointError that names the place and every one of `words`."""
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert str(folder) in message, message
    for word in words:
        assert word in message, message
    way_out = r"[:;,] .*(choose|use|take|download|set|write|give|remove)"
    assert re.search(way_out, message), f"no way out: {message}"
    return message


def test_the_folder_under_test_loads(folder):
    assert load_model(folder).config == CONFIG


# ---- the folder

def test_a_folder_that_is_not_there_is_named_with_the_bundled_models(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere is no directory and no bundled model: give"):
        load_model(tmp_path / "nowhere")


def test_a_hub_name_is_no_download(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"meta-llama/Llama-3.1-8B is no directory"):
        load_model("meta-llama/Llama-3.1-8B")


def test_what_came_from_a_hub_in_another_form_is_named_with_the_next_command(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only" / "gguf").mkdir(parents=True)
    (tmp_path / "only" / "gguf" / "m-q4.gguf").touch()
    cache = tmp_path / "models--a--b"
    (cache / "snapshots" / "0123").mkdir(parents=True)
    (cache / "snapshots" / "0123" / "config.json").touch()
    adapter, clone = tmp_path / "adapter", tmp_path / "clone"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    shutil.copytree(BUNDLED / "fable", clone)
    (clone / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for given, words in (
        ("Qwen/Qwen3-0.6B", "hf download Qwen/Qwen3-0.6B --local-dir Qwen3-0.6B"),
        ("no-such.gguf", "is a file of GGUF, llama.cpp's format"),
        (tmp_path / "only" / "gguf", "hf download ORGANISATION/MODEL"),
        (tmp_path / "only" / "gguf" / "m-q4.gguf", "hf download ORGANISATION/MODEL"),
        (folder / "model.safetensors", f"which lies in {folder}"),
        (cache, f"but {cache / 'snapshots' / '0123'} does"),
        (adapter, "merge it into its model"),
        (clone, f"{clone / 'tokenizer.json'} is not the file, but a pointer"),
    ):
        with pytest.raises(CheckpointError) as caught:
            load_model(given)
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_that_converts_a_pickle_is_one_that_works(folder, monkeypatch):
    transformers = pytest.importorskip("transformers")
    for file in (BUNDLED / "fable").glob("tokenizer*"):
        shutil.copy(file, folder)
    whole = load_model(folder).state_dict()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    _, option, code, *more = shlex.split(re.search(r"python -c .*", refuses(folder, "pickle"))[0])
    monkeypatch.setattr(sys, "argv", [option, *more])
    exec(code, {})
    there = load_model(f"{folder}-safetensors", dtype="float32").state_dict()
    assert all(torch.allclose(there[name].float(), whole[name].float()) for name in whole)


def test_a_file_instead_of_a_folder_is_refused(folder):
    with pytest.raises(CheckpointError, match="is a file, not a directory"):
        load_model(folder / "config.json")


def test_a_bundled_name_means_the_package_and_a_path_means_the_path(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tinyllm.model.config_reader.BUNDLED", tmp_path / "package")
    save_model(Transformer(CONFIG), tmp_path / "package" / "fable")
    (tmp_path / "here" / "fable").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert resolve("fable") == tmp_path / "package" / "fable"
    assert str(resolve("./fable")) == "fable"
    assert (BUNDLED / "..").resolve().name == "tinyllm"


# ---- config.json

def test_a_missing_config_is_named(folder):
    (folder / "config.json").unlink()
    refuses(folder, "config.json is missing")


BROKEN = {"torn": '{"model_type": "lla', "empty": "", "list": "[1, 2]", "latin": "\xff"}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_config_is_named(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refuses(folder, "config.json", "download it again")


@pytest.mark.parametrize("entry", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                   "num_attention_heads"])
@pytest.mark.parametrize("value", [None, 0, -4, "32", 1.5])
def test_a_size_that_is_no_size_is_named(folder, entry, value):
    edit(folder, drop=["head_dim"], **{entry: value})
    refuses(folder, "config.json", f"{entry} is {value!r}")


def test_heads_that_do_not_divide_are_refused(folder):
    edit(folder, num_key_value_heads=3)
    refuses(folder, "num_key_value_heads (3)", "num_attention_heads (4)")


def test_an_odd_head_cannot_be_turned(folder):
    edit(folder, head_dim=7)
    refuses(folder, "head_dim", "7")


UNSUPPORTED = [
    ({"model_type": "gpt2"}, ["model_type 'gpt2'", "qwen3"]),
    ({"model_type": None}, ["model_type None"]),
    ({"model_type": "mixtral", "num_local_experts": 8}, ["num_local_experts is 8", "mixture-of-experts"]),
    ({"model_type": "qwen3_moe", "num_experts": 128}, ["num_experts is 128", "mixture-of-experts"]),
    ({"hidden_act": "gelu"}, ["hidden_act 'gelu'"]),
    ({"quantization_config": {"quant_method": "awq"}}, ["quantization_config"]),
    ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor 0.5"]),
    ({"rope_scaling": None, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
     ["partial_rotary_factor 0.25"]),
    ({"sliding_window": 64}, ["sliding_window 64", "max_position_embeddings"]),
    ({"model_type": "mistral", "sliding_window": 64}, ["sliding_window 64"]),
    ({"model_type": "mistral", "max_position_embeddings": 32768}, ["sliding_window 4096"]),  # by default
    ({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0},
     ["sliding_window 64"]),
    ({"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]},
     ["'sliding_attention'"]),
    ({"layer_types": ["linear_attention"]}, ["'linear_attention'"]),
    ({"is_causal": False}, ["is_causal"]),
    ({"architectures": ["LlamaForSequenceClassification"]}, ["LlamaForSequenceClassification"]),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["'dynamic'", "current length"]),
    ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, ["'longrope'"]),
    ({"rope_scaling": {"rope_type": "longrope", "long_factor": [1.0]}}, ["'long_factor'"]),
    ({"rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}}, ["'mrope_section'"]),
    ({"rope_scaling": {"rope_type": "linear"}}, ["'linear'", "'factor'"]),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, ["'llama3'", "'low_freq_factor'"]),
    ({"rope_scaling": {"rope_type": "linear", "factor": "two"}}, ["factor", "'two'"]),
    ({"rope_theta": -1.0}, ["theta", "-1.0"]),
    ({"rope_theta": float("nan")}, ["theta", "nan"]),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 0}}, ["beta_fast is 0"]),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_slow": "1"}}, ["beta_slow is '1'"]),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "attention_factor": float("inf")}},
     ["attention_factor is inf"]),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": "1", "high_freq_factor": 4.0}},
     ["low_freq_factor is '1'"]),
    ({"rope_scaling": "yarn"}, ["'yarn', not an object"]),
    ({"rms_norm_eps": None}, ["rms_norm_eps is None"]),
    ({"rms_norm_eps": float("nan")}, ["rms_norm_eps is nan"]),
    ({"rope_parameters": {"full_attention": {"rope_type": "default"}}, "rope_scaling": None},
     ["'full_attention'"]),
    ({"eos_token_id": "</s>"}, ["eos_token_id '</s>'"]),
]


@pytest.mark.parametrize("entries, words", UNSUPPORTED, ids=[json.dumps(e)[:60] for e, _ in UNSUPPORTED])
def test_what_would_be_computed_wrongly_is_refused_by_name(folder, entries, words):
    edit(folder, **entries)
    refuses(folder, "config.json", *words)


@pytest.mark.parametrize("entries", [
    {"sliding_window": None}, {"sliding_window": 128}, {"partial_rotary_factor": 1.0},
    {"hidden_act": "swish"}, {"layer_types": ["full_attention", "full_attention"]},
    {"quantization_config": None}, {"num_local_experts": 0}, {"rope_scaling": {"type": "default"}},
    {"attention_dropout": 0.1, "use_cache": False, "pretraining_tp": 1},
], ids=str)
def test_entries_that_change_nothing_are_accepted(folder, entries):
    edit(folder, **entries)
    assert load_model(folder).config == CONFIG


def test_an_inactive_window_of_qwen_is_accepted(folder):
    inactive = dict(model_type="qwen2", sliding_window=64, num_key_value_heads=2)
    for more in ({"use_sliding_window": False}, {"use_sliding_window": True, "max_window_layers": 2},
                 {"use_sliding_window": True, "max_window_layers": 0, "layer_types": ["full_attention"] * 2}):
        edit(folder, **inactive, **more)
        assert read_config(folder).attention_bias
        edit(folder, drop=["use_sliding_window", "max_window_layers", "layer_types"])


def test_both_spellings_of_the_angles_are_read(folder):
    yarn = {"factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "truncate": False}
    edit(folder, rope_theta=5e5, rope_scaling={"type": "yarn", **yarn})
    old = read_config(folder).rope
    new = {"rope_theta": 5e5, "rope_type": "yarn", **yarn}
    edit(folder, drop=["rope_theta", "rope_scaling"], rope_parameters=new)
    assert read_config(folder).rope == old == RopeConfig(5e5, "yarn", **yarn)


@pytest.mark.parametrize("angles, context", [
    ({"rope_type": "linear", "factor": 4.0}, 512), ({"type": "linear", "factor": 1.5}, 192),
    ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
    ({"rope_type": "yarn", "factor": 4.0}, 512),  # counted from max_position_embeddings, where no other length is named
    ({"rope_type": "yarn", "original_max_position_embeddings": 48}, 128),
    ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 32}, 128),
    ({"rope_type": "default"}, 128),
], ids=str)
def test_scaled_angles_lengthen_the_context_as_vllm_counts_it(folder, angles, context):
    edit(folder, rope_scaling=angles)
    config = read_config(folder)
    assert config.max_position_embeddings == context
    save_model(Transformer(config), folder)
    assert read_config(folder) == config  # also after the way back
    edit(folder, rope_scaling=angles, max_position_embeddings=128)
    llm = LLM(str(folder), skip_tokenizer_init=True, num_gpu_blocks_override=2 + context // 16, enforce_eager=True)
    assert llm.engine.max_model_len == context
    (answer,) = llm.generate([{"prompt_token_ids": [1] * (context - 2)}], SamplingParams(max_tokens=2, ignore_eos=True))
    assert len(answer.outputs[0].token_ids) == 2
    with pytest.raises(ValueError, match=f"{context:,}"):
        llm.generate([{"prompt_token_ids": [1] * context}], SamplingParams(max_tokens=1))


def test_a_window_shorter_than_the_lengthened_context_hides_something(folder):
    edit(folder, model_type="mistral", sliding_window=128)
    assert read_config(folder).max_position_embeddings == 128
    edit(folder, rope_scaling={"rope_type": "linear", "factor": 2.0})
    refuses(folder, "sliding_window 128")


def test_end_of_sequence_ids_come_from_both_files(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 0]}')
    assert read_config(folder).eos_token_ids == (0, 7)
    (folder / "generation_config.json").write_text("{")
    for text, words in (("{", " cannot be read"), ('{"eos_token_id": "</s>"}', ": eos_token_id '</s>' is no token id")):
        (folder / "generation_config.json").write_text(text)
        with pytest.raises(CheckpointError, match=f"generation_config.json{words}"):
            read_config(folder)


def test_the_default_end_of_a_family_counts_only_where_no_file_names_one(folder):
    edit(folder, drop=("eos_token_id",))
    assert read_config(folder).eos_token_ids == (2,)  # as transformers
    (folder / "generation_config.json").write_text('{"eos_token_id": [7]}')
    assert read_config(folder).eos_token_ids == (7,)
    (folder / "generation_config.json").unlink()
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "<end>"}}')
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"9": {"content": "<end>"}}}')
    assert read_config(folder).eos_token_ids == (9,)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "x", "added_tokens_decoder": {"9": 9}}')
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json"):
        read_config(folder)


# ---- the files of weights

def test_a_folder_without_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    refuses(folder, "holds neither model.safetensors nor")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_a_pickle_is_never_opened(folder, name, tmp_path):
    (folder / "model.safetensors").unlink()
    trap = tmp_path / "sprung"
    torch.save({"weight": Trap(trap)}, folder / name)
    refuses(folder, name, "pickle", "safetensors")
    assert not trap.exists()
    torch.load(folder / name, weights_only=False)
    assert trap.exists(), "the trap works when a pickle is read"


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_file_cut_short_is_named(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refuses(folder, "model.safetensors", "broken or cut short")


def test_a_file_of_noise_is_named(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)
    refuses(folder, "model.safetensors", "broken or cut short")


def test_several_files_with_an_index_load_as_one(folder):
    whole = load_model(folder).state_dict()
    shard(folder, 3)
    for name, tensor in load_model(folder).state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_a_missing_shard_is_named(folder):
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refuses(folder, "model-00002-of-00002.safetensors", "named in the index but missing")


def test_a_torn_shard_is_named(folder):
    shard(folder)
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refuses(folder, file.name, "broken or cut short")


def test_the_same_tensor_in_two_shards_is_refused(folder):
    shard(folder)
    first, second = (folder / f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    one = load_file(first)
    name = next(iter(one))
    save_file({**load_file(second), name: one[name]}, second)
    refuses(folder, name, first.name, second.name)


@pytest.mark.parametrize("text", [
    "{", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_named(folder, text):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    refuses(folder, "model.safetensors.index.json", "download it again")


# ---- the tensors

def test_a_missing_tensor_is_named(folder):
    retensor(folder, lambda t: t.pop("model.layers.1.self_attn.k_proj.weight"))
    refuses(folder, "model.layers.1.self_attn.k_proj.weight is missing")


def test_a_tensor_without_a_place_is_named(folder):
    retensor(folder, lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}))
    refuses(folder, "model.safetensors", "model.layers.0.self_attn.q_proj.bias has no place")


def test_a_wrong_shape_is_named_with_both_shapes(folder):
    retensor(folder, lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(48, 31)}))
    refuses(folder, "model.safetensors", "model.layers.0.mlp.up_proj.weight", "[48, 31]", "[48, 32]")


def test_a_config_of_another_model_is_noticed(folder):
    edit(folder, num_key_value_heads=4)
    refuses(folder, "model.layers.0.self_attn.k_proj.weight", "[16, 32]", "[32, 32]")


def test_integers_are_not_taken_for_weights(folder):
    retensor(folder, lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}))
    refuses(folder, "model.norm.weight", "I8")


def test_stored_rotary_frequencies_are_ignored(folder):
    retensor(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    load_model(folder)


def test_a_tied_head_may_be_stored_twice_but_not_differ(folder):
    edit(folder, tie_word_embeddings=True)
    refuses(folder, "lm_head.weight differs from model.embed_tokens.weight")
    retensor(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    model = load_model(folder)
    assert model.lm_head.weight is model.embed_tokens.weight


def test_an_untied_head_must_be_there(folder):
    retensor(folder, lambda t: t.pop("lm_head.weight"))
    refuses(folder, "lm_head.weight is missing")


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "float64", torch.float64])
def test_a_type_that_is_not_computed_in_is_refused(folder, dtype):
    with pytest.raises(CheckpointError, match=r"dtype .* is not supported: use 'auto'"):
        load_model(folder, dtype=dtype)


@pytest.mark.parametrize("dtype, expected", [
    ("auto", torch.float32), ("bfloat16", torch.bfloat16), (torch.float16, torch.float16)])
def test_every_parameter_has_the_type_asked_for_and_no_gradient(folder, dtype, expected):
    model = load_model(folder, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {expected}
    assert not any(p.requires_grad or p.is_meta for p in model.parameters())
    assert model.rotary.inv_freq.dtype == torch.float32 and not model.rotary.inv_freq.is_meta


def test_a_shape_that_no_family_has_cannot_be_saved(tmp_path):
    odd = ModelConfig(96, 32, 48, 1, 4, 2, 8, 128, attention_output_bias=True)
    with pytest.raises(ValueError, match="no supported model type"):
        save_model(Transformer(odd), tmp_path)
