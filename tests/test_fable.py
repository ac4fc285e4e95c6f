"""The bundled models: small, standard, and the same under `transformers`."""
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("fable", "fable-draft")
PROMPTS = ("Once upon a time", "The king said to his youngest daughter", "\"Who are you?\" asked", "I")


@pytest.mark.parametrize(("name", "limit"), [("fable", 16e6), ("fable-draft", 2e6)])
def test_weights_are_bfloat16_and_small(name, limit):
    file = resolve(name) / "model.safetensors"
    assert file.stat().st_size <= limit
    with safe_open(file, "pt") as tensors:
        assert {tensors.get_slice(k).get_dtype() for k in tensors.keys()} == {"BF16"}  # noqa: SIM118


@pytest.mark.parametrize("name", NAMES)
def test_transformers_gives_the_same_logits(name):
    ours, theirs = load_model(name), AutoModelForCausalLM.from_pretrained(resolve(name), dtype=torch.float32)
    tokenizer = load_tokenizer(resolve(name))
    for prompt in PROMPTS:
        ids = torch.tensor(tokenizer.encode(prompt))
        with torch.no_grad():
            logits = ours.logits(ours(ids, AttentionInputs.from_lengths([len(ids)])))
            expected = theirs(ids[None]).logits[0]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_transformers_gives_the_same_greedy_tokens(name):
    ours, theirs = load_model(name), AutoModelForCausalLM.from_pretrained(resolve(name), dtype=torch.float32)
    tokenizer = load_tokenizer(resolve(name))
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt)
        tokens = list(generate(ours, ids, SamplingParams(temperature=0.0, max_tokens=60)))
        expected = theirs.generate(torch.tensor([ids]), max_new_tokens=60, do_sample=False)[0, len(ids):].tolist()
        assert tokens == expected, prompt


def test_both_models_share_one_tokenizer():
    files = [(resolve(n) / "tokenizer.json").read_bytes() for n in NAMES]
    assert files[0] == files[1]
    ours, theirs = load_tokenizer(resolve("fable")), AutoTokenizer.from_pretrained(resolve("fable"))
    assert ours.vocab_size == len(theirs) == 4096
    for text in (*PROMPTS, "naïve 漢字 🐺 42,000\n\n  done<|endoftext|>"):
        assert ours.encode(text) == theirs.encode(text)


def test_chat_template_joins_contents():
    messages = [{"role": "system", "content": "A tale."}, {"role": "user", "content": "Once upon a time"}]
    theirs = AutoTokenizer.from_pretrained(resolve("fable"))
    expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert load_tokenizer(resolve("fable")).apply_chat_template(messages) == expected
    assert "Once upon a time" in expected


@pytest.mark.parametrize("name", NAMES)
def test_card_states_the_numbers_of_the_log(name):
    """The card's scores are those of the training log, and the aim is met."""
    card = (ROOT / "tinyllm" / "models" / name / "README.md").read_text()
    log = json.loads((ROOT / "book" / "measurements" / f"training_{name}.json").read_text())
    score = log["bits_per_byte"]
    for value in score.values():
        assert f"{value:.3f}" in card
    if name == "fable":
        assert score["model"] <= 0.75 * score["trigram"]


def test_score_of_the_tale_is_what_the_card_says():
    """Bits per byte on the tale of this book, which the model has never seen: computed here, stated in the card."""
    import numpy as np
    from tinybook import tale

    from tinyllm.train.fable import EqualLengthAttention, bits_per_byte

    text, model = tale(), load_model("fable", backend=EqualLengthAttention())
    ids = np.array([*load_tokenizer(resolve("fable")).encode(text), 0])
    value = bits_per_byte(model, ids, len(text.encode()))
    card = (ROOT / "tinyllm" / "models" / "fable" / "README.md").read_text()
    assert f"{value:.2f} bits per byte on the tale" in card


def test_samples_in_the_card_are_what_the_model_says():
    """The card shows 20 samples with their seeds; each is drawn again here."""
    samples = json.loads((ROOT / "tinyllm" / "models" / "fable" / "samples.json").read_text())
    assert len(samples) == 20
    model, tokenizer = load_model("fable"), load_tokenizer(resolve("fable"))
    card = (ROOT / "tinyllm" / "models" / "fable" / "README.md").read_text()
    for sample in samples:
        assert sample["text"].split("\n")[0] in card
    for sample in samples[::7]:
        params = SamplingParams(**sample["params"])
        tokens = list(generate(model, tokenizer.encode(sample["prompt"]), params))
        assert tokenizer.decode(tokens) == sample["text"], sample
