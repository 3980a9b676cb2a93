"""Texts: decoding without loss, characters as numbers, built-in corpora."""

import json

import numpy as np
import pytest

from shared.errors import DataUnavailable, InvalidInput
from shared.texts import CHUNK_BYTES, decoded, inspect_text, known_encoding, lowercase, vocabulary_differences
from shared.vocabulary import Vocabulary
from tasks.texts import NIETZSCHE_CHARACTERS, encode, nietzsche, python_docs, samples_page


@pytest.fixture
def file_of(tmp_path):
    """Write bytes to a file of its own, and give its path."""
    written = []

    def write(data):
        path = tmp_path / f"text-{len(written)}.txt"
        path.write_bytes(data)
        written.append(path)
        return str(path)

    return write


def encoded(path, encoding="utf-8", *, in_lower_case=False):
    info = inspect_text(path, encoding, field="text")
    return encode(lambda: decoded(path, encoding, field="text"), info, in_lower_case=in_lower_case)


def test_characters_are_code_points_and_come_back_whole(file_of):
    text = "Привет, 世界! 😀😀"

    found = encoded(file_of(text.encode()))

    assert found.characters == "".join(sorted(set(text)))
    assert len(found.ids) == 14  # 6 Cyrillic letters, comma, space, 2 Chinese, mark, space, 2 emoji
    assert found.excerpt(0, 14) == text


def test_a_text_of_more_than_256_characters_takes_two_bytes_each(file_of):
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))

    assert encoded(file_of(b"abc")).ids.dtype == np.uint8
    assert encoded(file_of(many.encode())).ids.dtype == np.uint16
    assert encoded(file_of(many.encode())).excerpt(0, 300) == many


@pytest.mark.parametrize(
    ("data", "encoding", "offset"),
    [
        ("naïve café".encode("latin-1"), "utf-8", 2),
        ("Привет".encode("cp1251"), "utf-8", 0),
        (b"abc\x81", "cp1252", 3),
        # The wrong byte lies behind the first piece read, and a character lies across the pieces' border.
        (b"a" * (CHUNK_BYTES - 1) + "é".encode() + b"xyz\xff", "utf-8", CHUNK_BYTES + 4),
        (b"ab" + "é".encode()[:1], "utf-8", 2),  # cut off in the middle of a character
        ("日本".encode("shift_jis") + b"\xfd", "shift_jis", 4),
    ],
)
def test_a_wrong_byte_is_refused_with_its_offset(file_of, data, encoding, offset):
    with pytest.raises(InvalidInput, match=rf"^byte {offset} \(0x{data[offset]:02x}\)") as refused:
        inspect_text(file_of(data), encoding, field="text")

    assert refused.value.field == "text"


def test_pieces_of_a_long_text_lose_nothing_at_their_borders(file_of):
    text = "é😀a" * (CHUNK_BYTES // 7 + 1000)  # 7 bytes each time: borders fall within characters

    found = encoded(file_of(text.encode()))

    assert len(found.ids) == len(text)
    assert "".join(np.array(list(found.characters))[found.ids]) == text


def test_a_byte_order_mark_is_no_part_of_the_text(file_of):
    assert inspect_text(file_of("\ufeffab".encode()), "utf-8", field="text").vocabulary == "ab"
    assert inspect_text(file_of("ab".encode("utf-16")), "utf-16", field="text").vocabulary == "ab"


@pytest.mark.parametrize("name", ["no-such", "rot13", "hex", "idna", "unicode_escape", "zlib"])
def test_what_is_no_encoding_of_text_files_is_refused(name):
    with pytest.raises(ValueError, match="no encoding"):
        known_encoding(name)


def test_lower_case_keeps_every_character_in_its_place(file_of):
    # İ is two characters in lower case, and Python makes a final Σ another letter than the others.
    text = "İSTANBUL ΣΟΦΟΣ Straße"

    found = encoded(file_of(text.encode()), in_lower_case=True)

    assert found.excerpt(0, len(text)) == lowercase(text) == "İstanbul σοφοσ straße"


def test_vocabularies_are_compared_by_name():
    assert vocabulary_differences("abc", "abc") == ""
    assert vocabulary_differences("abc", "bcé\n") == "the model has never seen 'é', '\\n'; the text lacks 'a'"


@pytest.mark.parametrize(
    "data", [{"characters": "abc", "mode": "window", "window": 9}, ["a", "b", "c"], {"c": 2, "a": 0, "b": 1}]
)
def test_a_vocabulary_may_be_our_file_a_list_or_a_map(data):
    assert Vocabulary.parse(json.dumps(data).encode(), field="vocabulary").characters == "abc"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'["ab"]',
        b'["a", "a"]',
        b'{"a": 0, "b": 2}',
        b'{"a": true}',
        b"[" * 5000,
        b'["\\ud800"]',
    ],
)
def test_what_is_no_vocabulary_is_refused_by_field(data):
    with pytest.raises(InvalidInput) as refused:
        Vocabulary.parse(data, field="vocabulary")

    assert refused.value.field == "vocabulary"


def test_pythons_own_documentation_is_always_there():
    text = python_docs()

    assert len(text) > 300_000
    assert 'The "if" statement is used for conditional execution' in text
    assert python_docs() == text


def test_a_corpus_that_cannot_be_downloaded_says_which_file_to_put_where(tmp_path, monkeypatch):
    # A proxy that refuses connections: no network, whatever the machine has.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")

    with pytest.raises(DataUnavailable, match="put it at") as refused:
        nietzsche(tmp_path / "weights")

    assert str(tmp_path / "weights" / "nietzsche.txt") in refused.value.message


def test_a_corpus_that_lies_in_its_place_is_taken_and_a_wrong_one_is_not(tmp_path):
    path = tmp_path / "nietzsche.txt"
    path.write_text("x" * NIETZSCHE_CHARACTERS, "utf-8")
    assert len(nietzsche(tmp_path)) == 600_893

    path.write_text("<html>not found</html>", "utf-8")
    with pytest.raises(DataUnavailable, match="22 characters"):
        nietzsche(tmp_path)


def test_a_page_of_samples_shows_each_below_its_temperature():
    assert (
        samples_page("ab", [(0.2, "c"), (1.0, "d")])
        == "----- temperature 0.2\nabc\n\n----- temperature 1\nabd\n"
    )
