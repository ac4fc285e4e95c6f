"""Chapter 2's tokenizer against two programs that others wrote, on text that nobody chose."""
import json
import random
import shutil
from collections import Counter
from itertools import pairwise

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tinybook import tale
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from tinyllm.model.hf_tokenizer import Detokenizer, load_tokenizer
from tinyllm.model.tokenizer import BPE, EOS_TEXT, merge_pair
from tinyllm.model.tokenizer_files import load_bpe, save_tokenizer
from tinyllm.model.tokenizer_training import count_pieces, learn_merges, train_bpe

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")

ODD = [
    " ", "  ", "\n", "\n\n", "\t", "\r\n", "\x0b", "\x0c", "\x00", "\x1c", "\x7f", "\x85", "\xa0", "\u2028",
    "\u3000", "\ufeff", "\ufffd", "\U0010ffff", "'s", "'S", "don't", "1", "12", "1234567", "½", "é",
    "e\u0301", "δράκος", "\u9f99", "\u0e01\u0e33", "\N{DRAGON}", "\N{FAMILY}\u200d\N{GIRL}", "|>", "<|",
    EOS_TEXT[:-1], EOS_TEXT,
]
FRAGMENTS = st.one_of(st.sampled_from(tale().split()[:400]), st.sampled_from(ODD))
TEXT = st.one_of(st.text(max_size=60), st.lists(FRAGMENTS, max_size=12).map("".join))
LLAMA_CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 800}


@pytest.fixture(scope="module")
def bpe():
    """Trained so that merges also join odd characters: else no wrong cut between them would show."""
    odd = "".join(a + b for a in ODD for b in ODD)
    return train_bpe([tale(), *[odd] * 20], 800)


@pytest.fixture(scope="module")
def folder(bpe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tokenizer(bpe, folder)
    (folder / "config.json").write_text(json.dumps(LLAMA_CONFIG))  # as it lies beside a model
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return AutoTokenizer.from_pretrained(folder)


def stream(tokenizer, ids, **options):
    detokenizer = Detokenizer(tokenizer, **options)
    return [*map(detokenizer.add, ids), detokenizer.finish()]


# ---- the same ids, and the same text back

@given(text=TEXT)
@example(text="Once upon a time")
@example(text=" 's '")
@example(text="x\x1c\x1d \x1e")
def test_the_chapters_code_tokenizers_and_transformers_find_the_same_ids(bpe, ours, theirs, text):
    ids = bpe.encode(text)
    assert ours.encode(text) == ids
    assert theirs(text)["input_ids"] == ids


@given(text=TEXT)
def test_decoding_gives_back_every_text(bpe, ours, theirs, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert ours.decode(ids, skip_special_tokens=False) == text
    assert theirs.decode(ids) == text


@given(ids=st.lists(st.integers(0, 799), max_size=30))
def test_any_ids_decode_to_the_same_text_everywhere(bpe, ours, theirs, ids):
    text = bpe.decode(ids)
    assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids) == text
    assert b"".join(map(ours.id_to_bytes, ids)).decode(errors="replace") == text
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == bpe.decode(i for i in ids if i)


@given(text=TEXT)
@example(text=f"the end{EOS_TEXT}")
def test_the_text_of_a_special_token_can_be_read_as_plain_text(bpe, text):
    ids = bpe.encode(text, allow_special=False)
    assert 0 not in ids
    assert bpe.decode(ids) == text


def test_overlapping_special_tokens_are_found_as_the_library_finds_them(tmp_path):
    bpe = train_bpe(tale(), 300, special_tokens=["<s>", "<s>x", "</s>", " <s>"])
    save_tokenizer(bpe, tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ["<s>xx<s>", "a <s>b</s>", "<s", "<s><s>x</s>", " <s>x"]:
        assert library.encode(text).ids == bpe.encode(text), text
    assert train_bpe(tale(), 260, special_tokens=[]).encode(EOS_TEXT)[0] == ord("<")


def test_the_bundled_tokenizers_are_the_same_and_agree_with_the_chapters_code():
    from importlib.resources import files

    models_folder = files("tinyllm") / "models"
    fable, draft = (models_folder / name / "tokenizer.json" for name in ("fable", "fable-draft"))
    assert fable.read_text() == draft.read_text()
    bpe, tokenizer = load_bpe(fable.parent), load_tokenizer(fable.parent)
    assert bpe.vocab_size == tokenizer.vocab_size == 4096
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.bos_token) == (EOS_TEXT, 0, None)
    assert bpe.encode(tale()) == tokenizer.encode(tale())


# ---- training

def merges_by_recounting(counts, num_merges):
    """BPE as its definition reads: count every pair of every word, merge the best, again."""
    words, tokens, merges = [list(piece) for piece in counts], [bytes([b]) for b in range(256)], []
    while len(merges) < num_merges:
        totals = Counter()
        for word, times in zip(words, counts.values(), strict=True):
            for pair in pairwise(word):
                totals[pair] += times
        best = max(totals, key=lambda pair: (totals[pair], -pair[0], -pair[1]), default=None)
        if best is None or totals[best] < 2:
            break
        words = [merge_pair(word, best, len(tokens)) for word in words]
        merges.append((tokens[best[0]], tokens[best[1]]))
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return merges


@given(text=st.text(alphabet="aabbc ", max_size=200), num_merges=st.integers(0, 40))
@example(text=tale()[:5000], num_merges=120)
def test_merges_are_those_of_counting_afresh_in_every_round(text, num_merges):
    counts = count_pieces([text])
    merges = learn_merges(counts, num_merges)
    assert merges == merges_by_recounting(counts, num_merges)
    assert len(BPE(merges).vocab) == 256 + len(merges)  # no token is spelled twice


def test_training_is_cut_at_documents_and_does_not_depend_on_how_they_arrive():
    documents = tale().split("\n\n")
    joined = train_bpe(EOS_TEXT.join(documents), 400)
    assert joined.merges == train_bpe(iter(documents), 400).merges
    assert joined.vocab_size == 400
    assert not any(b"<|" in token or b"|>" in token for token in joined.vocab)


def test_training_stops_when_no_pair_occurs_twice():
    assert train_bpe("abcd", 1000).vocab_size == 257
    assert train_bpe("abab cd", 1000).merges == [(b"a", b"b")]


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="vocab_size 256 is below 257"):
        train_bpe("Once upon a time", 256)


def test_saved_and_loaded_is_the_same(bpe, folder):
    again = load_bpe(folder)
    assert (again.merges, again.vocab, again.special_tokens) == (bpe.merges, bpe.vocab, bpe.special_tokens)


def test_two_merges_that_spell_one_token_are_refused():
    with pytest.raises(ValueError, match="spell the same token"):
        BPE([(b"a", b"b"), (b"ab", b"c"), (b"b", b"c"), (b"a", b"bc")])


# ---- streaming

@given(text=TEXT)
@example(text="naïve \N{DRAGON} café")
def test_a_stream_of_tokens_spells_the_text_and_never_half_a_character(bpe, ours, text):
    ids, shown = bpe.encode(text), b""
    detokenizer = Detokenizer(ours, skip_special_tokens=False)
    for i, token_id in enumerate(ids):
        part = detokenizer.add(token_id)
        shown += part.encode()
        sent = sum(len(bpe.id_to_bytes(t)) for t in ids[: i + 1])
        assert text.encode().startswith(shown)  # so a U+FFFD can only be one of the text
        assert 0 <= sent - len(shown) <= 3  # and nothing complete is held back
    assert shown.decode() + detokenizer.finish() == text


@given(ids=st.lists(st.integers(0, 799), max_size=30), skip=st.booleans())
def test_a_stream_of_any_ids_is_what_decode_makes_of_them(ours, ids, skip):
    assert "".join(stream(ours, ids, skip_special_tokens=skip)) == ours.decode(ids, skip_special_tokens=skip)


def test_an_unfinished_character_is_held_until_finish(ours):
    ids = [1 + b for b in "\N{DRAGON}".encode()]  # each byte a token of its own
    assert stream(ours, ids[:-1]) == ["", "", "", "\ufffd"]
    assert stream(ours, ids) == ["", "", "", "\N{DRAGON}", ""]


def test_a_prompt_that_ends_inside_a_character_is_continued(ours):
    first, *rest = (1 + b for b in "\N{DRAGON}".encode())
    assert "".join(stream(ours, rest, prompt_token_ids=[first])) == "\N{DRAGON}"


# ---- tokenizers that others made

def with_bytes():
    """The vocabulary of a SentencePiece-like model: marks, 256 bytes, then pieces with `▁` for a space."""
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    marks = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=marks, show_progress=False)
    trained.train_from_iterator([tale()], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return models.BPE(model["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)


def llama2_style():
    tokenizer = tokenizers.Tokenizer(with_bytes())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def metaspace_style():
    tokenizer = tokenizers.Tokenizer(with_bytes())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    return tokenizer


def qwen_style():
    """GPT-2's bytes under another cut, and added tokens with characters outside the byte alphabet."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    pattern = tokenizers.Regex(r"\p{N}|[^\r\n\p{L}\p{N}]?\p{L}+|\s+(?!\S)|\s+|.")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=to_bytes.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([tale()], trainer)
    tokenizer.add_tokens(["<tool call>", "\u9f99\u9f99"])
    return tokenizer


STYLES = {"llama2": llama2_style, "metaspace": metaspace_style, "qwen": qwen_style}


@pytest.fixture(scope="module", params=STYLES)
def foreign(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = STYLES[request.param]()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(folder)


@given(text=st.lists(FRAGMENTS, max_size=12).map("".join))
@example(text="Once upon a time")
@example(text=" two  spaces ")
@example(text="Once<s> upon</s> <s> a time")
@example(text="café \N{DRAGON}\N{DRAGON} <tool call> \u9f99\u9f99")
def test_foreign_tokenizers_stream_what_they_decode(foreign, text):
    ids = foreign.encode(text)
    assert ids == [foreign.bos_token_id, *foreign.encode(text, add_special_tokens=False)]
    whole, parts = foreign.decode(ids), stream(foreign, ids)
    assert "".join(parts) == whole
    if "\ufffd" not in whole:
        assert not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize("cut_at", range(1, 9))
def test_a_continuation_keeps_the_space_between_prompt_and_first_word(foreign, cut_at):
    text = "Once upon a time there lived a café \N{DRAGON}"
    ids = foreign.encode(text)
    prompt, rest = ids[:cut_at], ids[cut_at:]
    assert foreign.decode(prompt) + "".join(stream(foreign, rest, prompt_token_ids=prompt)) == text


def test_lengths_and_paddings_left_in_a_file_are_ignored(foreign):
    assert foreign.decode(foreign.encode(tale()[:400])) == tale()[:400]


def test_special_tokens_are_found_by_name_whether_string_or_object(foreign):
    assert (foreign.bos_token, foreign.eos_token) == ("<s>", "</s>")
    assert foreign.backend.id_to_token(foreign.eos_token_id) == "</s>"


@pytest.mark.parametrize("settings", [
    {"eos_token": "<end>"},
    {"eos_token": "<s>", "added_tokens_decoder": {"501": {"content": "<end>", "special": True, "rstrip": True}}},
    {"eos_token": "<s>", "extra_special_tokens": {"turn": "<end>"}}, {"eos_token": "<s>"}])  # fmt: skip
def test_a_token_is_special_where_either_file_says_so(tmp_path, settings):
    made = qwen_style()
    made.add_tokens([tokenizers.AddedToken("<end>", special=False, normalized=False, rstrip=True)])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = load_tokenizer(tmp_path)
    ids = ours.encode("Once<end>  upon")
    assert ids == made.encode("Once<end>  upon").ids and ours.decode(ids, skip_special_tokens=False) == "Once<end>upon"
    hidden = settings != {"eos_token": "<s>"}
    assert ours.decode(ids) == "".join(stream(ours, ids)) == ("Onceupon" if hidden else "Once<end>upon")


TOKENS = ["<s>", "</s>", "<end>", "<tool>", "upon", " sp ", "\u9f99x"]


def settings_with_tokens(tokenizer, draw):
    """Settings that list and name tokens, some of which the tokenizer does not have."""
    def flags(text):
        sides = dict(lstrip=draw.random() < 0.2, rstrip=draw.random() < 0.2)
        return dict(content=text, special=draw.random() < 0.5, normalized=False, single_word=False, **sides)

    known = draw.sample(TOKENS, draw.randint(0, 3))
    tokenizer.add_tokens([AddedToken(**flags(text)) for text in known])
    old = {token.content: {name: getattr(token, name) for name in flags("")}
           for token in tokenizer.get_added_tokens_decoder().values()}
    free, listed = max(tokenizer.get_vocab().values()) + 1, {}
    for text in draw.sample(TOKENS, draw.randint(1, 5)):
        token_id = tokenizer.token_to_id(text)
        listed[free if token_id is None else token_id] = old.get(text) or flags(text)
        free += token_id is None
    items = [(str(i), token) for i, token in listed.items()]
    draw.shuffle(items)
    hidden = [token["content"] for token in listed.values() if token["special"]]
    draw.shuffle(hidden)
    named = dict(zip(("eos_token", "bos_token")[: draw.randint(0, 2)], hidden, strict=False))
    return {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": dict(items), **named}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(8))
def test_tokens_that_only_the_settings_list_are_those_of_transformers(tmp_path, style, seed):
    draw, tokenizer = random.Random(seed), STYLES[style]()
    settings = settings_with_tokens(tokenizer, draw)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for _ in range(10):
        text = "".join(draw.choice([*TOKENS, "Once", " ", "  ", "a", "\u00e9"]) for _ in range(draw.randint(0, 8)))
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        for skip in (True, False):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
            assert "".join(stream(ours, ids, skip_special_tokens=skip)) == ours.decode(ids, skip)


@pytest.mark.parametrize("listed", [[1], {"x": {"content": "a"}}, {"1": "a"}, {"1": {}}, {"1": {"content": 1}}])
def test_a_list_of_added_tokens_in_another_form_is_named(folder, tmp_path, listed):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    with pytest.raises(ValueError, match="added_tokens_decoder"):
        load_tokenizer(copy)


@given(data=st.data())
def test_bytes_of_byte_level_tokens_join_to_what_is_decoded(foreign, data):
    if foreign.byte_level:
        ids = data.draw(st.lists(st.integers(0, foreign.vocab_size - 1), max_size=20))
        joined = b"".join(map(foreign.id_to_bytes, ids)).decode(errors="replace")
        assert joined == foreign.decode(ids, skip_special_tokens=False)


# ---- chat templates

MESSAGES = [
    {"role": "system", "content": "Be <brief> & “kind”."},
    {"role": "user", "content": "Once upon a time"},
]
TEMPLATES = [
    "{{ messages | map(attribute='content') | join('\\n') }}",
    "{{ bos_token }}{% for m in messages %}\n    <|{{ m.role }}|>{{ m['content'] | trim }}{{ eos_token }}\n"
    "    {% if loop.first %}first{% endif %}\n  {% endfor %}\n"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}",
    "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m | tojson(indent=1) }}{% endfor %}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_chat_templates_are_rendered_as_by_transformers(ours, theirs, template, add_generation_prompt):
    expected = theirs.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
    )
    ours.config["chat_template"] = template
    assert ours.apply_chat_template(MESSAGES, add_generation_prompt) == expected


def test_a_template_file_comes_before_the_configuration_and_default_before_other_names(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert load_tokenizer(copy).apply_chat_template(MESSAGES[1:]) == "Once upon a time"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (copy / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert load_tokenizer(copy).apply_chat_template(MESSAGES) == "plain"
    (copy / "chat_template.jinja").write_text("from the file")
    assert load_tokenizer(copy).apply_chat_template(MESSAGES) == "from the file"


def test_several_templates_are_found_wherever_they_are_kept_and_chosen_as_by_transformers(folder, tmp_path):
    plain, tools = "{{ bos_token }}{{ messages[0].content }}", "{{ tools | length }} tools"
    one, call = [{"role": "user", "content": "Hi"}], {"tools": [{"type": "function"}]}
    ways = {
        "list": {"chat_template": [{"name": "default", "template": plain}, {"name": "tool_use", "template": tools}]},
        "object": {"chat_template": {"default": plain, "tool_use": tools}},
        "files": {},
    }
    for name, config in ways.items():
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        (copy / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": None}))
        (copy / "special_tokens_map.json").write_text('{"bos_token": "<|endoftext|>"}')
        if not config:
            (copy / "chat_template.jinja").write_text(plain)
            (copy / "additional_chat_templates").mkdir()
            (copy / "additional_chat_templates" / "tool_use.jinja").write_text(tools)
        ours, theirs = load_tokenizer(copy), AutoTokenizer.from_pretrained(copy)
        for how in ({}, call, {"chat_template": "tool_use", **call}, {"chat_template": "other"}):
            assert ours.apply_chat_template(one, **how) == theirs.apply_chat_template(one, tokenize=False, **how), name
        assert ours.apply_chat_template(one) == "<|endoftext|>Hi"
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"has chat templates \(tool_use\), but none of them is the default"):
        load_tokenizer(copy).apply_chat_template(one)


def test_without_a_template_the_error_says_where_one_is_looked_for(folder, tmp_path):
    shutil.copy(folder / "tokenizer.json", tmp_path)
    with pytest.raises(ValueError, match=r"no chat template.*tokenizer_config\.json.*plain prompt"):
        load_tokenizer(tmp_path).apply_chat_template(MESSAGES)


@pytest.mark.parametrize("template, said", [
    ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    ("{% for", "chat template"),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    ("{{ messages.append(1) }}", "unsafe"),
])
def test_a_template_that_refuses_breaks_or_climbs_out_is_a_clear_error(ours, template, said):
    ours.config["chat_template"] = template
    with pytest.raises(ValueError, match=f"chat template.*{said}|{said}"):
        ours.apply_chat_template(MESSAGES)


# ---- bad input

def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist: give the folder"):
        load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist"):
        load_bpe(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"\xff\xfe", b'{"version": "1.0"}', b'{"model": {"type": "Magic"}}',
])
def test_a_broken_tokenizer_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    for load in (load_tokenizer, load_bpe):
        with pytest.raises(ValueError, match=r"tokenizer\.json"):
            load(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", "null"])
def test_a_broken_configuration_is_named(folder, tmp_path, content):
    shutil.copy(folder / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json"):
        load_tokenizer(tmp_path)


def test_the_chapters_class_refuses_a_file_that_cuts_otherwise(bpe, tmp_path):
    save_tokenizer(bpe, tmp_path, 2048)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("{1,3}", "+"))
    load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer\.json was not written by save_tokenizer: .* load_tokenizer"):
        load_bpe(tmp_path)


@pytest.mark.parametrize("text", ["Once \ud83d upon", "\udc80"])
def test_half_a_surrogate_pair_is_refused_with_its_place(bpe, ours, text):
    place = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
    plainly = lambda t: bpe.encode(t, allow_special=False)  # noqa: E731
    for use in (bpe.encode, plainly, ours.encode, lambda t: train_bpe(t, 300)):
        name = rf"U\+{ord(text[place]):04X}"
        with pytest.raises(ValueError, match=rf"{name}, at character {place}, .*errors='replace'"):
            use(text)


@pytest.mark.parametrize("token_id", [-1, 800, 10**12])
def test_ids_outside_the_vocabulary_are_refused_where_no_model_can_have_drawn_them(bpe, ours, token_id):
    uses = [lambda i: bpe.decode([1, i]), bpe.id_to_bytes]
    if token_id < 0:  # above it is the padding of a model's table: tests/test_text.py
        uses += [lambda i: ours.decode([1, i]), ours.id_to_bytes, Detokenizer(ours).add]
    for use in uses:
        with pytest.raises(ValueError, match=f"token id {token_id} is outside .* vocabulary, 0 to 799"):
            use(token_id)
