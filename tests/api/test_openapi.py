"""The description of the API is the API's: every route is in it, every reference leads somewhere."""

import re

import pytest

from api.openapi import path_of
from shared.kinds import KINDS


@pytest.fixture
def description(client):
    """What /openapi.json answers."""
    return client.get("/openapi.json").get_json()


def test_every_call_of_the_api_is_described(client, description):
    described = {
        (path, method.upper()) for path, operations in description["paths"].items() for method in operations
    }
    routes = {
        (path_of(rule), method)
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods & {"GET", "POST", "PUT", "PATCH", "DELETE"}
        if not rule.endpoint.startswith("pages.") and rule.endpoint != "static"
    }

    assert described == routes
    assert ("/v1/jobs/{job_id}/artifacts/{name}", "GET") in described


def test_every_call_is_explained_and_says_what_it_answers(description):
    for path, operations in description["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["responses"], path
            named = set(re.findall(r"{(\w+)}", path))
            assert {
                field["name"] for field in operation.get("parameters", []) if field["in"] == "path"
            } == named


def test_every_reference_leads_to_a_schema(description):
    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    schemas = {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
    assert set(references(description)) <= schemas


def test_the_parameters_of_every_kind_are_in_it(description):
    for params in KINDS.values():
        assert description["components"]["schemas"][params.__name__]["properties"]


def test_the_filters_of_the_list_are_in_it(description):
    parameters = description["paths"]["/v1/jobs"]["get"]["parameters"]

    assert {field["name"] for field in parameters} == {"status", "kind", "label", "limit", "cursor"}
