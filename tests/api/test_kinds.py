"""Kinds: each with a schema that a form, a command line or another client can be built from."""

import pytest

from api.schemas import KindAnswer, KindsAnswer
from shared.kinds import KINDS


def test_all_kinds_are_listed_in_their_order(client):
    answer = client.get("/v1/kinds").get_json()

    KindsAnswer.model_validate(answer)
    assert [kind["kind"] for kind in answer["kinds"]] == list(KINDS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_explains_itself_and_each_of_its_parameters(client, kind):
    answer = client.get(f"/v1/kinds/{kind}").get_json()

    KindAnswer.model_validate(answer)
    assert answer["description"]
    assert answer["schema"]["additionalProperties"] is False
    for name, field in answer["schema"]["properties"].items():
        assert field.get("description"), f"{kind}.{name} has no docstring"


def test_a_parameter_that_names_an_upload_says_so(client):
    image = client.get("/v1/kinds/steps").get_json()["schema"]["properties"]["image"]

    assert image["anyOf"][0]["format"] == "upload"
    assert image["anyOf"][0]["media"] == "image/*"


@pytest.mark.parametrize("kind", ["nothing", "Steps", "..", "steps/x"])
def test_an_unknown_kind_is_not_found(client, kind):
    answer = client.get(f"/v1/kinds/{kind}")

    assert answer.status_code == 404
    assert answer.get_json()["error"]["code"] in ("kind_not_found", "not_found")
