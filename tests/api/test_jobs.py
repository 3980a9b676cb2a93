"""Submit, look, list, cancel: what each call answers, and what it refuses."""

import pytest

from api.schemas import JobAnswer, JobsAnswer

UNKNOWN_ID = "0" * 26


def refused(answer, status, code, field=None):
    """Check that an answer is an error of the one shape, and return its message."""
    assert answer.status_code == status, answer.text
    error = answer.get_json()["error"]
    assert error["code"] == code
    assert error.get("field") == field
    assert set(answer.get_json()) == {"error"}
    return error["message"]


def test_a_submitted_job_is_accepted_and_can_be_looked_at_where_the_answer_says(client):
    answer = client.post("/v1/jobs", json={"kind": "steps", "params": {"steps": 3}})

    assert answer.status_code == 202
    job = answer.get_json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert client.get(answer.headers["Location"]).get_json() == job
    assert job["status"] == "queued"
    assert job["params"]["steps"] == 3


def test_the_answer_holds_all_parameters_and_the_seed_that_was_drawn(submit):
    params = submit(params={})["params"]

    assert params["steps"] == 5  # the kind's default
    assert isinstance(params["seed"], int)


def test_a_job_is_shown_with_exactly_the_fields_of_the_contract(submit, run_queued, client):
    job_id = submit(params={"steps": 2, "checkpoint_every": 1}, labels={"who": "me"})["id"]
    run_queued(job_id)

    JobAnswer.model_validate(
        client.get(f"/v1/jobs/{job_id}").get_json()
    )  # closed: one field more is an error


def test_everything_about_a_job_can_be_said_at_submit(submit):
    first = submit(params={"steps": 1})
    job = submit(
        params={"steps": 1}, priority="high", depends_on=[first["id"]], labels={"who": "me", "try": "2"}
    )

    assert job["status"] == "waiting"
    assert (job["priority"], job["depends_on"], job["labels"]) == (
        "high",
        [first["id"]],
        {"who": "me", "try": "2"},
    )


def test_a_misspelt_parameter_is_refused_by_name(client):
    answer = client.post("/v1/jobs", json={"kind": "steps", "params": {"stepps": 3}})

    assert "stepps" in refused(answer, 422, "invalid_input", "stepps")


def test_a_parameter_out_of_range_is_refused_by_name(client):
    answer = client.post("/v1/jobs", json={"kind": "steps", "params": {"steps": 0}})

    refused(answer, 422, "invalid_input", "steps")


def test_an_upload_that_is_not_there_is_refused_by_the_parameter_that_names_it(client):
    answer = client.post("/v1/jobs", json={"kind": "steps", "params": {"image": "0" * 64}})

    assert answer.status_code == 422
    assert answer.get_json()["error"]["field"] == "image"


def test_an_unknown_kind_is_refused_and_the_known_ones_are_named(client):
    answer = client.post("/v1/jobs", json={"kind": "stepz"})

    assert "steps" in refused(answer, 422, "kind_not_found", "kind")


def test_a_job_that_depends_on_an_unknown_one_is_refused(client):
    answer = client.post("/v1/jobs", json={"kind": "steps", "depends_on": [UNKNOWN_ID]})

    refused(answer, 422, "invalid_input", "depends_on")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "kind"),
        ({"kind": 7}, "kind"),
        ({"kind": "steps", "parms": {}}, "parms"),
        ({"kind": "steps", "params": [1]}, "params"),
        ({"kind": "steps", "params": None}, "params"),
        ({"kind": "steps", "priority": "urgent"}, "priority"),
        ({"kind": "steps", "depends_on": "abc"}, "depends_on"),
        ({"kind": "steps", "depends_on": ["../../etc"]}, "depends_on.0"),
        ({"kind": "steps", "depends_on": [UNKNOWN_ID] * 101}, "depends_on"),
        ({"kind": "steps", "labels": ["a"]}, "labels"),
        ({"kind": "steps", "labels": {"a": 1}}, "labels.a"),
        ({"kind": "steps", "labels": {"a": "x" * 256}}, "labels.a"),
        ({"kind": "steps", "labels": {"a=b": "x"}}, "labels.a=b"),
        ({"kind": "steps", "labels": {"": "x"}}, "labels."),
        ({"kind": "steps", "labels": {f"n{number}": "x" for number in range(33)}}, "labels"),
    ],
)
def test_a_body_that_is_not_as_it_should_be_is_refused_by_field(client, body, field):
    refused(client.post("/v1/jobs", json=body), 422, "invalid_request", field)


def test_nothing_is_queued_by_a_refused_submit(client, queue):
    client.post("/v1/jobs", json={"kind": "steps", "params": {"steps": 0}})

    assert queue.jobs() == ([], None)


def test_the_same_idempotency_key_and_body_make_one_job(client, submit):
    headers = {"Idempotency-Key": "order 66"}

    first = submit(headers, params={"steps": 2})
    second = submit(headers, params={"steps": 2})

    assert second["id"] == first["id"]
    assert len(client.get("/v1/jobs").get_json()["jobs"]) == 1


def test_the_same_idempotency_key_with_another_body_is_a_conflict(client, submit):
    headers = {"Idempotency-Key": "order-66"}
    submit(headers, params={"steps": 2})

    answer = client.post("/v1/jobs", json={"kind": "steps", "params": {"steps": 3}}, headers=headers)

    refused(answer, 409, "idempotency_conflict")


def test_a_refused_submit_leaves_its_idempotency_key_free(client, submit):
    headers = {"Idempotency-Key": "order-66"}
    client.post("/v1/jobs", json={"kind": "steps", "params": {"steps": 0}}, headers=headers)

    submit(headers, params={"steps": 3})


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "zwölf", "a\tb"])
def test_an_idempotency_key_that_is_none_is_refused(client, key):
    answer = client.post("/v1/jobs", json={"kind": "steps"}, headers={"Idempotency-Key": key})

    refused(answer, 422, "invalid_request", "Idempotency-Key")


def test_an_unknown_job_is_not_found(client):
    refused(client.get(f"/v1/jobs/{UNKNOWN_ID}"), 404, "job_not_found")
    refused(client.post(f"/v1/jobs/{UNKNOWN_ID}/cancel"), 404, "job_not_found")


@pytest.mark.parametrize(
    "job_id", ["x", "A" * 26, "0" * 27, "0" * 25 + "*", "%00" * 26, "..", "0" * 25 + "%0a"]
)
def test_what_is_no_job_id_is_not_found_and_not_looked_for(client, job_id):
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert client.get(f"/v1/jobs/{job_id}/events").status_code == 404
    assert client.get(f"/v1/jobs/{job_id}/artifacts/result.txt").status_code == 404
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 404


def test_a_queued_job_is_cancelled_at_once_and_again_without_harm(client, submit, run_queued):
    job_id = submit()["id"]

    first = client.post(f"/v1/jobs/{job_id}/cancel")
    again = client.post(f"/v1/jobs/{job_id}/cancel", json={})

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.get_json()["status"] == again.get_json()["status"] == "cancelled"
    assert run_queued(job_id).attempt == 0  # it never starts


def test_cancelling_an_ended_job_changes_nothing(client, submit, run_queued):
    job_id = submit(params={"steps": 1})["id"]
    run_queued(job_id)

    answer = client.post(f"/v1/jobs/{job_id}/cancel")

    assert answer.status_code == 202
    assert (answer.get_json()["status"], answer.get_json()["cancel_requested"]) == ("succeeded", False)


def test_a_cancel_has_nothing_to_say_but_that(client, submit):
    job_id = submit()["id"]

    answer = client.post(f"/v1/jobs/{job_id}/cancel", json={"reason": "bored"})

    refused(answer, 422, "invalid_request", "reason")


def test_jobs_are_listed_newest_first_page_by_page(client, submit):
    ids = [submit()["id"] for _ in range(5)]

    first = client.get("/v1/jobs?limit=3").get_json()
    rest = client.get(f"/v1/jobs?limit=3&cursor={first['next_cursor']}").get_json()

    JobsAnswer.model_validate(first)
    assert [job["id"] for job in first["jobs"] + rest["jobs"]] == ids[::-1]
    assert rest["next_cursor"] is None


def test_jobs_are_found_by_status_kind_and_label(client, submit):
    mine = submit(labels={"who": "me", "colour": "red"})["id"]
    other = submit(labels={"who": "you"})["id"]
    client.post(f"/v1/jobs/{other}/cancel")

    def found(query):
        return [job["id"] for job in client.get(f"/v1/jobs?{query}").get_json()["jobs"]]

    assert found("status=queued") == [mine]
    assert found("status=cancelled") == [other]
    assert found("kind=steps") == [other, mine]
    assert found("label=who") == [other, mine]
    assert found("label=who=me") == [mine]
    assert found("label=who%3Dme&status=cancelled") == []
    assert found("label=nobody") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=many", "limit"),
        ("limit=", "limit"),
        ("status=done", "status"),
        ("kind=stepz", "kind"),
        ("cursor=../x", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=1-2-3-x", "cursor"),
        (f"label={'x' * 400}", "label"),
        ("stauts=queued", "stauts"),
        ("status=queued&status=running", "status"),
    ],
)
def test_a_list_query_that_means_nothing_is_refused_by_field(client, query, field):
    refused(client.get(f"/v1/jobs?{query}"), 422, "invalid_request", field)


def test_a_fresh_server_lists_no_jobs(client):
    assert client.get("/v1/jobs").get_json() == {"jobs": [], "next_cursor": None}
