"""API keys: random, kept as hashes, in a file for its owner's eyes only."""

import hashlib

import pytest

from api import keys
from shared.errors import RequestInvalid, SettingsInvalid


@pytest.fixture
def key_file(tmp_path):
    """Where the keys are to be; neither the file nor its folder is there yet."""
    return tmp_path / "etc" / "keys"


def test_the_file_holds_the_hash_and_never_the_key(key_file):
    key = keys.add(key_file, "ada")

    assert key not in key_file.read_text()
    assert hashlib.sha256(key.encode()).hexdigest() in key_file.read_text()


def test_only_its_owner_may_read_the_file(key_file):
    keys.add(key_file, "ada")
    keys.add(key_file, "bob")

    assert key_file.stat().st_mode & 0o777 == 0o600


def test_keys_are_long_and_never_the_same(key_file):
    made = {keys.add(key_file, f"key{number}") for number in range(20)}

    assert len(made) == 20
    assert min(map(len, made)) >= 43  # 256 random bits in base64


def test_keys_are_listed_by_name(key_file):
    keys.add(key_file, "ada")
    keys.add(key_file, "bob@example.org")

    assert [key.name for key in keys.read(key_file)] == ["ada", "bob@example.org"]


def test_a_name_can_be_used_once_and_again_after_its_key_was_removed(key_file):
    keys.add(key_file, "ada")
    with pytest.raises(RequestInvalid, match="already"):
        keys.add(key_file, "ada")

    keys.remove(key_file, "ada")
    keys.add(key_file, "ada")


def test_removing_a_key_that_is_not_there_says_so(key_file):
    keys.add(key_file, "ada")

    with pytest.raises(RequestInvalid, match="bob"):
        keys.remove(key_file, "bob")


@pytest.mark.parametrize("name", ["", " ", "a b", "a\nb", "#a", "x" * 65, "ä"])
def test_a_name_that_would_break_the_file_is_refused(key_file, name):
    with pytest.raises(RequestInvalid):
        keys.add(key_file, name)
    assert not key_file.exists()


def test_comments_and_empty_lines_are_passed_over(key_file):
    keys.add(key_file, "ada")
    key_file.write_text("# mine\n\n" + key_file.read_text() + "\n")

    assert [key.name for key in keys.read(key_file)] == ["ada"]


def test_a_damaged_line_is_named(key_file):
    keys.add(key_file, "ada")
    key_file.write_text(key_file.read_text() + "bob 123 now\n")

    with pytest.raises(SettingsInvalid, match="line 3"):
        keys.read(key_file)
    with pytest.raises(SettingsInvalid):
        keys.add(key_file, "carol")  # it would lose bob


def test_a_key_file_without_a_file_knows_nobody(key_file):
    assert not keys.KeyFile(key_file).knows("")
