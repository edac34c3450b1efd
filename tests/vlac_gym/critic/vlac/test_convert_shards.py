import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from vlac_gym.critic.vlac.convert_shards import ShardWriter, read_header, read_rows
from vlac_gym.errors import ConfigError
from vlac_gym.files.digest import file_digest


def write_raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_the_library_reads_what_the_writer_writes(tmp_path):
    path = tmp_path / "a.safetensors"
    wide, scalar = np.arange(6, dtype=np.float32).reshape(3, 2), np.float16([7])
    with ShardWriter(path, {"wide": ("F32", (3, 2)), "scalar": ("F16", ())}) as writer:
        writer.write("wide", wide.view(np.uint8))
        writer.write("scalar", scalar.view(np.uint8))
    loaded = load_file(path)
    np.testing.assert_array_equal(loaded["wide"], wide)
    assert loaded["scalar"].shape == ()
    assert loaded["scalar"] == 7


def test_the_reader_reads_what_the_library_writes(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"b": np.arange(4, dtype=np.float32), "a": np.ones((2, 3), np.float16)}
    save_file(tensors, path, metadata={"format": "pt"})
    header = read_header(path)
    assert set(header) == {"a", "b"}
    for name, tensor in tensors.items():
        assert read_rows(header[name]).tobytes() == tensor.tobytes()
    assert read_rows(header["a"]).shape == (2, 6)  # two rows of three half floats


def test_tensors_come_in_the_announced_order_and_size(tmp_path):
    row = np.zeros((1, 4), np.uint8)
    tensors = {"a": ("F32", (1,)), "b": ("F32", (1,))}
    with pytest.raises(ConfigError, match="Expected tensor 'a' of 4 bytes next"):  # noqa: SIM117
        with ShardWriter(tmp_path / "order", tensors) as writer:
            writer.write("b", row)
    with pytest.raises(ConfigError, match="got 'a' of 8"):  # noqa: SIM117
        with ShardWriter(tmp_path / "size", tensors) as writer:
            writer.write("a", np.zeros((2, 4), np.uint8))
    with pytest.raises(ConfigError, match="lacks the tensors b"):  # noqa: SIM117
        with ShardWriter(tmp_path / "short", tensors) as writer:
            writer.write("a", row)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{", b"", "does not parse"),
        ([], b"", "does not parse"),
        ({"a": 1}, b"", "does not parse"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"", "does not parse"),
        ({"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, b"1234", "no shape"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1", "unquantised"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234", "do not fit"),
        ({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, b"1234", "do not fit"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678", "starts at byte"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345", "has a tail"),
    ],
)
def test_malformed_headers_are_refused(tmp_path, header, data, message):
    with pytest.raises(ConfigError, match=message):
        read_header(write_raw(tmp_path / "a.safetensors", header, data))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "BF16", 3]), "shape": json_values, "data_offsets": json_values}
)


@given(
    header=st.binary(max_size=64) | st.dictionaries(st.text(max_size=4), entries | json_values, max_size=3)
)
def test_no_header_breaks_the_reader(tmp_path_factory, header):
    path = write_raw(tmp_path_factory.mktemp("fuzz") / "a.safetensors", header, b"12345678")
    try:
        read = read_header(path)
    except ConfigError:
        return
    assert sum(entry.num_bytes for entry in read.values()) == 8


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
