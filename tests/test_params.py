"""What a request may ask for, and what it is told when it may not."""

import math
import pickle
import subprocess
import sys
import warnings
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyllm.engine.params import LATER, NEVER, SamplingParams

numpy = pytest.importorskip("numpy")

# fmt: off
REFUSED = [
    ("temperature", -0.1), ("temperature", 2.1), ("temperature", math.nan), ("temperature", math.inf),
    ("temperature", -math.inf), ("temperature", "hot"), ("temperature", None), ("temperature", True),
    ("temperature", 10**400), ("temperature", [1.0]), ("temperature", 1j),
    ("top_p", 0.0), ("top_p", -0.5), ("top_p", 1.0001), ("top_p", math.nan), ("top_p", "0.9"),
    ("min_p", -0.1), ("min_p", 1.1), ("min_p", math.nan),
    ("top_k", -2), ("top_k", 1.5), ("top_k", 5.0), ("top_k", True), ("top_k", "40"), ("top_k", None),
    ("seed", -2), ("seed", 2**64), ("seed", 0.5), ("seed", "7"),
    ("max_tokens", 0), ("max_tokens", -5), ("max_tokens", 2.0), ("max_tokens", math.inf),
    ("max_tokens", "16"),
    ("stop_token_ids", "50"), ("stop_token_ids", 50), ("stop_token_ids", [-1]), ("stop_token_ids", [1.5]),
    ("stop_token_ids", b"ab"), ("ignore_eos", 1), ("ignore_eos", "yes"), ("ignore_eos", None),
]
# fmt: on


@pytest.mark.parametrize("name, value", REFUSED, ids=[f"{n}={str(v)[:12]}" for n, v in REFUSED])
def test_a_wrong_value_is_refused_with_its_name_and_value(name, value):
    with pytest.raises(ValueError) as error:
        SamplingParams(**{name: value})
    message = str(error.value)
    shown = value[0] if isinstance(value, list) and name == "stop_token_ids" else value
    assert name in message and repr(shown) in message and "must be" in message


def test_every_refusal_names_the_way_out():
    for name in ("temperature", "top_p", "min_p", "top_k", "seed", "max_tokens"):
        with pytest.raises(ValueError, match=r": (use|leave|ask)"):
            SamplingParams(**{name: -7})


@pytest.mark.parametrize(
    "name, value",
    [
        ("temperature", 0),
        ("temperature", 2),
        ("top_p", 1e-300),
        ("top_p", 1),
        ("min_p", 0),
        ("min_p", 1),
        ("top_k", 0),
        ("top_k", 10**12),
        ("seed", 0),
        ("seed", 2**64 - 1),
        ("max_tokens", 1),
        ("max_tokens", None),
        ("stop_token_ids", None),
        ("stop_token_ids", {3}),
        ("ignore_eos", True),
    ],
)
def test_the_ends_of_each_range_are_accepted(name, value):
    SamplingParams(**{name: value})


def test_defaults_are_those_of_vllm():
    p = SamplingParams()
    assert (p.temperature, p.top_k, p.top_p, p.min_p, p.seed, p.max_tokens) == (1.0, 0, 1.0, 0.0, None, 16)
    assert p.stop_token_ids == () and p.ignore_eos is False


def test_minus_one_switches_off_top_k_and_the_seed():
    assert SamplingParams(top_k=-1, seed=-1) == SamplingParams()


def test_numpy_numbers_become_plain_ones():
    p = SamplingParams(
        temperature=numpy.float32(0.5), top_k=numpy.int64(3), stop_token_ids=numpy.array([1, 2])
    )
    assert p == SamplingParams(temperature=0.5, top_k=3, stop_token_ids=(1, 2))
    assert type(p.temperature) is float and type(p.top_k) is int and type(p.stop_token_ids[0]) is int


def test_a_tiny_temperature_is_raised_and_said_so():
    with pytest.warns(UserWarning, match=r"0\.001 is raised to 0\.01.*use 0") as caught:
        assert SamplingParams(temperature=0.001).temperature == 0.01
    assert caught[0].filename == __file__  # the warning points at whoever wrote the value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SamplingParams(temperature=0).greedy and not SamplingParams(temperature=0.01).greedy


def test_unknown_names_say_what_is_known_what_comes_later_and_what_was_meant():
    with pytest.raises(TypeError, match=r"did you mean max_tokens\?.*known: temperature"):
        SamplingParams(max_new_tokens=5)
    for name in LATER:
        with pytest.raises(TypeError, match=f"{name} is not supported yet"):
            SamplingParams(**{name: 1})
    for name in NEVER:
        with pytest.raises(TypeError, match="beam search"):
            SamplingParams(**{name: 1})
    with pytest.raises(TypeError, match=r"unknown sampling parameter zzz \(known"):
        SamplingParams(zzz=1)


def test_params_are_values_frozen_hashable_and_picklable():
    p = SamplingParams(temperature=0.7, stop_token_ids=[5, 5, 3])
    assert p.stop_token_ids == (5, 3)
    assert pickle.loads(pickle.dumps(p)) == p and hash(p) == hash(
        SamplingParams(temperature=0.7, stop_token_ids=(5, 3))
    )
    with pytest.raises(FrozenInstanceError):
        p.temperature = 0.1
    with pytest.raises(ValueError):
        replace(p, top_p=7)  # a copy is checked too


def test_stop_set_is_a_set_of_both_kinds_of_ends():
    assert SamplingParams(stop_token_ids=[4]).stop_set((0, 2)) == {0, 2, 4}
    assert SamplingParams(stop_token_ids=[4], ignore_eos=True).stop_set((0, 2)) == {4}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(sorted(SamplingParams.__dataclass_fields__)),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["", "1", "x"])
        | st.lists(st.integers(), max_size=3),
    )
)
def test_any_values_make_good_params_or_a_value_error(values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            p = SamplingParams(**values)
        except ValueError:
            return
    assert p.temperature == 0 or 0.01 <= p.temperature <= 2
    assert 0 < p.top_p <= 1 and 0 <= p.min_p <= 1 and p.top_k >= 0
    assert p.seed is None or 0 <= p.seed < 2**64
    assert p.max_tokens is None or p.max_tokens >= 1
    assert SamplingParams(**{name: getattr(p, name) for name in p.__dataclass_fields__}) == p


def test_params_need_no_torch():
    code = "import sys; sys.modules['torch'] = None; from tinyllm.engine.params import SamplingParams as P"
    subprocess.run([sys.executable, "-c", code], check=True)
