import io
import pickle

import numpy as np
import pytest

from tasks.checkpoint import decode, encode


def test_a_state_comes_back_bit_for_bit():
    state = {
        "weights": np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32),
        "ids": np.arange(5, dtype=np.uint16),
        "empty": np.zeros((0, 3)),
        "loss": 0.1 + 0.2,
        "step": np.int64(7),
        "names": ["a", {"b": None}],
    }

    back = decode(encode(state))

    for name in ("weights", "ids", "empty"):
        np.testing.assert_array_equal(back[name], state[name])
        assert back[name].dtype == state[name].dtype
    assert (back["loss"], back["step"], back["names"]) == (0.1 + 0.2, 7, ["a", {"b": None}])
    assert set(back) == set(state)


def test_nothing_is_ever_pickled_or_unpickled():
    with pytest.raises(TypeError):
        encode({"code": print})
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        decode(buffer.getvalue())


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps([1]), encode({"a": np.ones(1000)})[:-200]])
def test_what_is_no_checkpoint_is_refused_as_such(data):
    with pytest.raises(ValueError):
        decode(data)
