"""The text of an answer: what decoding prompt and answer gives, cut at the first stop text, however it is made."""

import json
import string
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tokenizers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tinybook import tale
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from tinyllm.engine.core import Request
from tinyllm.engine.output_processor import OutputProcessor, make_logprobs
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.sampling import gather_logprobs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import Detokenizer, Tokenizer, load_tokenizer
from tinyllm.serve.protocol import chat_logprobs, completion_logprobs

settings.register_profile("patient", deadline=None, max_examples=60)  # a busy machine is no failure
settings.load_profile("patient")

# ---- vocabularies of every form

MARKS = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
REPLACE = normalizers.Replace(" ", "▁")


def pieces_of(split) -> tokenizers.Tokenizer:
    """SentencePiece-like merges: marks, 256 bytes, then pieces with `▁` for a space."""
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = split
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*MARKS, *BYTES], show_progress=False)
    trained.train_from_iterator([tale()[:6000]], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    model = models.BPE(model["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    return tokenizers.Tokenizer(model)


def llama2():
    made = pieces_of(pre_tokenizers.Metaspace())
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), REPLACE])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(parts)
    return made


def gemma():
    made = pieces_of(pre_tokenizers.Metaspace(prepend_scheme="never"))
    made.normalizer = REPLACE
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made


def metaspace():
    made = pieces_of(pre_tokenizers.Metaspace())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    return made


def unigram(fallback=True):
    letters = [(f"▁{word}", -9.0) for word in sorted(set(tale().split()))[:150]]
    letters += [(c, -12.0) for c in string.ascii_letters + string.punctuation + string.digits + "▁\n"]
    vocab = [(mark, 0.0) for mark in MARKS] + [(byte, -30.0) for byte in BYTES * fallback] + letters
    made = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=fallback))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    if fallback:
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return made


def byte_level(*more, normalizer=None):
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Split(Regex(r"\p{N}|[^\r\n\p{L}\p{N}]?\p{L}+|\s+(?!\S)|\s+|."), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([cut, alphabet])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet.alphabet(), show_progress=False)
    made.train_from_iterator([tale()[:6000]], trainer)
    made.add_tokens(list(more))
    return made


def in_a_sequence():
    made = byte_level()
    made.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])
    return made


def wordpiece():
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=MARKS, show_progress=False)
    made.train_from_iterator([tale()[:6000]], trainer)
    return made


def word_ends():
    """As in the first GPT: a token that ends a word says so, and the space comes with the next one."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.BPEDecoder("</w>")
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=MARKS, end_of_word_suffix="</w>", show_progress=False)
    made.train_from_iterator([tale()[:6000]], trainer)
    return made


def no_decoder():
    made = wordpiece()
    made.decoder = None
    return made


FORMS = {
    "byte-level": byte_level,
    "byte-level, added": lambda: byte_level("<tool call>", "\u9f99\u9f99", normalizer=normalizers.NFC()),
    "byte-level in a sequence": in_a_sequence, "llama2": llama2, "gemma": gemma, "metaspace": metaspace,
    "unigram": unigram, "unigram without bytes": lambda: unigram(False), "wordpiece": wordpiece,
    "word ends": word_ends, "no decoder": no_decoder,
}  # fmt: skip
WITH_BYTES = [name for name in FORMS if "byte-level" in name or name in ("llama2", "gemma", "metaspace", "unigram")]


def with_marks(form) -> Tokenizer:
    """A tokenizer of this form, with a start and an end that are special."""
    made = FORMS[form]()
    made.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return Tokenizer(made, {})


@pytest.fixture(scope="module", params=FORMS)
def tokenizer(request):
    return with_marks(request.param)


WORDS = ["Once", " upon", " a time", "\n", "  ", " ", "so", " happy", ".", "<s>", "</s>", "<tool call>", "1890"]
ODD = ["สวัสดีครับ", "ผม", "日本", "語", "\N{DRAGON}", "\N{GRINNING FACE}", "\N{FAMILY}\u200d\N{GIRL}", "e\u0301",
       "\u0e01\u0e33", "é", "δράκος", "\ufffd", "\u9f99\u9f99", "\U0010ffff", "\x00", "a\u0308\u0323"]  # fmt: skip
TEXT = st.lists(st.sampled_from(WORDS + ODD) | st.text(max_size=3), max_size=10).map("".join)


def stream(tokenizer, prompt, answer, skip=True):
    """The pieces of an answer, of which the last is what is left in the end."""
    detokenizer = Detokenizer(tokenizer, prompt, skip)
    return [*map(detokenizer.add, answer), detokenizer.finish()]


def is_rest(pieces, tokenizer, prompt, answer, skip) -> bool:
    """Whether pieces are what comes after the prompt's text. A character that the prompt began is the answer's."""
    head, whole = tokenizer.decode(prompt, skip), tokenizer.decode(prompt + answer, skip)
    begun = head.endswith("\ufffd") and "".join(pieces) == whole[len(head) - 1 :] and whole.startswith(head[:-1])
    return begun or (head + "".join(pieces) == whole)


@given(text=TEXT, cut=st.integers(0, 60), skip=st.booleans())
@example(text="สวัสดีครับผม", cut=9, skip=True)
@example(text="日本語", cut=5, skip=True)
@example(text="<s>Once upon</s> a<s> time", cut=1, skip=True)
def test_the_pieces_of_an_answer_are_what_decoding_all_gives_after_the_prompts_text(tokenizer, text, cut, skip):
    ids = tokenizer.encode(text)
    for place in {min(cut, len(ids)), max(len(ids) - cut, 0)}:
        prompt, answer = ids[:place], ids[place:]
        pieces = stream(tokenizer, prompt, answer, skip)
        assert is_rest(pieces, tokenizer, prompt, answer, skip), (prompt, answer, pieces)
        if "\ufffd" not in tokenizer.decode(ids, skip):
            assert not any("\ufffd" in piece for piece in pieces)
    library = tokenizer.backend.decode(ids, skip_special_tokens=skip)
    assert "\ufffd" in library or tokenizer.decode(ids, skip) == library


@given(data=st.data(), skip=st.booleans())
def test_so_they_are_for_any_tokens_whatever(tokenizer, data, skip):
    some = st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=12)
    prompt, answer = data.draw(some), data.draw(some)
    assert is_rest(stream(tokenizer, prompt, answer, skip), tokenizer, prompt, answer, skip)
    known = [i for i in answer if i < tokenizer.vocab_size]
    library = tokenizer.backend.decode(known, skip_special_tokens=skip)
    if "\ufffd" not in library or tokenizer.byte_level:
        assert tokenizer.decode(answer, skip) == library


@pytest.mark.parametrize("form", WITH_BYTES)
def test_every_character_is_shown_as_soon_as_it_is_complete(form):
    tokenizer = with_marks(form)
    first = tokenizer.encode("a", False)
    for text in ODD:
        ids = tokenizer.encode("a" + text, False)[len(first) :]
        data, detokenizer, shown = b"", Detokenizer(tokenizer, first), ""
        for token_id in ids:
            data += tokenizer.id_to_bytes(token_id)
            shown += detokenizer.add(token_id)
            assert shown == data.decode(errors="ignore")
        assert data.decode() == shown, "the bytes of the tokens are those of the text"


@pytest.mark.parametrize("form", WITH_BYTES)
def test_a_character_may_begin_in_the_prompt_and_end_in_the_answer(form):
    tokenizer = with_marks(form)
    for text in ("Once \N{DRAGON}", "สวัสดีครับผม", "日本語"):
        ids = tokenizer.encode(text, False)
        for place in range(1, len(ids)):
            head = b"".join(map(tokenizer.id_to_bytes, ids[:place])).decode(errors="ignore").strip()
            rest = "".join(stream(tokenizer, ids[:place], ids[place:]))
            assert text.removeprefix(head).strip() == rest.strip(), (text, place)


def test_an_id_that_the_tokenizer_does_not_have_is_no_text(tokenizer):
    beyond = [tokenizer.vocab_size, tokenizer.vocab_size + 100, 2**40]
    ids = tokenizer.encode("Once upon")
    assert tokenizer.decode([*beyond, *ids, *beyond]) == tokenizer.decode(ids)
    assert "".join(stream(tokenizer, beyond, [*beyond, *ids, *beyond])) == tokenizer.decode(ids)
    assert [tokenizer.id_to_bytes(i) for i in beyond] == [b""] * 3


def test_a_long_stream_asks_the_library_for_no_token_twice(tokenizer, monkeypatch):
    asked, ids = [], tokenizer.encode(tale()[:3000])

    class Counted:
        def __getattr__(self, name, real=tokenizer.backend):
            return getattr(real, name) if name != "decode" else lambda *a, **k: asked.append(a) or real.decode(*a, **k)

    monkeypatch.setattr(tokenizer, "backend", Counted())
    stream(tokenizer, ids[:100], ids[100:])
    assert all(len(one) <= 2 for (one,) in asked)
    before = len(asked)
    stream(tokenizer, ids[:100], ids[100:])
    assert len(asked) == before


def test_a_token_added_to_a_byte_level_vocabulary_stands_for_its_own_text():
    tokenizer = Tokenizer(byte_level("Bác", "đem", "<č>"), {})  # letters of GPT-2's alphabet: the library misreads them
    ids = tokenizer.encode("xin Bác <č>đem Bác \N{DRAGON}")
    assert tokenizer.backend.decode(ids) != tokenizer.decode(ids) == "xin Bác <č>đem Bác \N{DRAGON}"
    assert b"".join(map(tokenizer.id_to_bytes, ids)).decode() == tokenizer.decode(ids)
    for cut in range(len(ids)):
        assert is_rest(stream(tokenizer, ids[:cut], ids[cut:]), tokenizer, ids[:cut], ids[cut:], True)


# ---- stop texts

FABLE = load_tokenizer(resolve("fable"))
LETTERS = st.text("ab ñ", min_size=1, max_size=4)


@given(text=st.text("ab ñ", min_size=1, max_size=14), stops=st.lists(LETTERS, min_size=1, max_size=3),
       keep=st.booleans(), steps=st.lists(st.integers(1, 3), min_size=14, max_size=14))  # fmt: skip
@example(text="xabcd", stops=["abcd", "bc"], keep=False, steps=[1] * 14)
@example(text="xabcx", stops=["abcd", "bc"], keep=True, steps=[1] * 14)
@example(text="the end", stops=["d", "en"], keep=False, steps=[3] * 14)
def test_the_stop_text_that_begins_first_in_the_text_ends_it_however_it_comes(text, stops, keep, steps):
    ids = FABLE.encode(text)
    params = SamplingParams(stop=stops, include_stop_str_in_output=keep, max_tokens=99)
    request, shown = Request("a", [5], params), ""
    processor = OutputProcessor(request, FABLE)
    for step in steps:  # several tokens come at once where guesses were right
        new, ids = ids[:step], ids[step:]
        request.output_token_ids += new
        request.finish_reason = request.finish_reason or (None if ids else "length")
        now = processor.output(0).text
        assert now.startswith(shown), "a character is taken back"
        shown = now
        if request.finish_reason:
            break
    places = [(text.find(stop), len(stop), stop) for stop in stops if stop in text]
    if not places:
        return check_end(processor, text, "length", None)
    place, length, stop = min(places)
    check_end(processor, text[: place + length * keep], "stop", stop)


@pytest.mark.parametrize("skip, keep", [(True, False), (True, True), (False, False), (False, True)])
@pytest.mark.parametrize("stops", [["<|endoftext|>"], ["never", "<|endoftext|>"], ["b and more", "<|endoftext|>"]])
def test_a_stop_text_that_is_a_special_token_ends_an_answer_whether_it_is_shown_or_not(stops, skip, keep):
    params = SamplingParams(stop=stops, skip_special_tokens=skip, include_stop_str_in_output=keep, ignore_eos=True)
    for least, text in ((0, "a b"), (4, "a b c")):
        request = Request("a", [5], replace(params, min_tokens=least))
        processor = OutputProcessor(request, FABLE)
        for token_id in FABLE.encode("a b<|endoftext|> c<|endoftext|> d"):
            request.output_token_ids.append(token_id)
            if processor.output(0).finished:
                break
        end = "<|endoftext|>" * (not skip)
        check_end(processor, text.replace("b ", f"b{end} ") + end * keep, "stop", "<|endoftext|>")
        assert len(request.output_token_ids) == (3 if least == 0 else 5)


def check_end(processor, text, *reasons):
    request = processor.request
    assert processor.visible_text == text and (request.finish_reason, request.stop_reason) == reasons


def test_every_token_has_its_text_and_its_place_and_no_other_token_takes_its_name():
    ids = FABLE.encode("a \N{DRAGON} is\N{DRAGON}", add_special_tokens=False)
    half = [i for i in range(FABLE.vocab_size) if FABLE.id_to_bytes(i) >= b"\xf0" and FABLE.decode([i]) == "\ufffd"][:4]
    request = Request("a", [5], SamplingParams(logprobs=4, stop="never said"))
    processor, text, tokens, offsets = OutputProcessor(request, FABLE), "", [], []
    for token_id in ids:
        others = [i for i in half if i != token_id]
        request.output_token_ids.append(token_id)
        request.logprobs.append(([token_id, *others], [-1.0] * (1 + len(others)), 1))
        if len(request.output_token_ids) == len(ids):
            request.finish_reason = "length"
        piece = processor.output(0, delta=True)
        old, new = completion_logprobs(piece), chat_logprobs(piece, 20, FABLE)["content"][0]
        assert len(old["top_logprobs"][0]) == 1 + len(others) and old["tokens"][0] in old["top_logprobs"][0]
        assert bytes(new["bytes"]) == FABLE.id_to_bytes(token_id)
        assert {bytes(top["bytes"]) for top in new["top_logprobs"]} == {
            FABLE.id_to_bytes(i) for i in (token_id, *others)}  # fmt: skip
        text, tokens, offsets = text + piece.text, tokens + old["tokens"], offsets + old["text_offset"]
    assert text == "".join(tokens) == "a \N{DRAGON} is\N{DRAGON}"
    assert all(text[place:].startswith(token) for token, place in zip(tokens, offsets, strict=True))


@pytest.mark.parametrize("taken", [10, 20, 30, 40])
@pytest.mark.parametrize("top", [0, 1, 2, 3, 5])
def test_as_many_likeliest_tokens_are_told_as_were_asked_for_also_where_some_are_equal(taken, top):
    logits = torch.full((1, FABLE.vocab_size), -5.0)
    logits[0, [10, 20, 30]] = 3.0
    ids, values, rank = gather_logprobs(logits, torch.tensor([taken]), top)
    lines = make_logprobs([(ids[0].tolist(), values[0].tolist(), int(rank))], FABLE)
    piece = SimpleNamespace(token_ids=[taken], logprobs=lines)
    told = chat_logprobs(piece, top, FABLE)["content"][0]["top_logprobs"]
    assert [one["logprob"] for one in told] == sorted(logits.log_softmax(-1)[0].tolist(), reverse=True)[:top]
