"""What operators ask: which workers there are, whether the process lives, whether it can serve."""

from api.schemas import WorkersAnswer


def test_the_process_lives_and_can_serve(client):
    assert client.get("/healthz").get_json() == {"status": "alive"}
    assert client.get("/readyz").get_json() == {"status": "ready"}


def test_without_workers_none_are_listed(client):
    assert client.get("/v1/workers").get_json() == {"workers": []}


def test_a_worker_is_listed_as_it_announced_itself_until_it_is_gone(client, queue):
    info = {"name": "w1@here", "host": "here", "device": "cpu", "pid": 1, "since_ms": 1_700_000_000_000}
    queue.registry.announce("w1@here", info, ttl_ms=10_000)

    listed = client.get("/v1/workers").get_json()
    queue.registry.retire("w1@here")

    WorkersAnswer.model_validate(listed)
    assert [worker["name"] for worker in listed["workers"]] == ["w1@here"]
    assert listed["workers"][0]["jobs"] == []
    assert client.get("/v1/workers").get_json() == {"workers": []}
