import pytest

from shared.errors import SettingsInvalid
from shared.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_S", "soon"),
        ("LEASE_S", "0"),
        ("MAX_LOSSES", "-1"),
        ("REDIS_URL", "http://here"),
        ("DETERMINISTIC", "perhaps"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_its_name(name, value):
    with pytest.raises(SettingsInvalid) as caught:
        Settings.from_environment({name: value})

    assert caught.value.field == name
    assert name in caught.value.message


def test_a_secret_in_a_bad_setting_is_not_told():
    with pytest.raises(SettingsInvalid) as caught:
        Settings.from_environment({"REDIS_URL": "http://:sesame@here"})

    assert "sesame" not in caught.value.message


def test_an_empty_variable_is_as_good_as_none():
    assert Settings.from_environment({"LEASE_S": ""}).lease_s == 30


def test_settings_survive_the_way_through_the_environment(tmp_path):
    settings = Settings(lease_s=3, deterministic=True, weights_dir=tmp_path, storage_url="memory://x")

    assert Settings.from_environment(settings.environment()) == settings
