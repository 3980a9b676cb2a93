"""The dreamq command: what it prints, how it ends, and that its errors are one line that says what to do."""

import json
import threading

import pytest
from click.testing import CliRunner

from api import keys
from api.cli import main
from tests.faults.steps import chain


@pytest.fixture
def dreamq(server_url, monkeypatch):
    """Run the command against the server."""
    monkeypatch.setenv("DREAMQ_URL", server_url)
    monkeypatch.delenv("DREAMQ_API_KEY", raising=False)

    def run(*words):
        return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)

    return run


@pytest.fixture
def working(queue):
    """A worker of this process: runs every queued job until the test ends."""
    from workers.run_job import run_job

    over = threading.Event()
    queue.registry.announce("here@h", {"name": "here@h", "host": "h", "queues": ["steps"]}, ttl_ms=60_000)

    def work():
        while not over.wait(0.05):
            for job in queue.jobs(status="queued")[0]:
                run_job(job.id)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def one_line(result):
    """Check that a command failed with one line of explanation, and return it."""
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_submit_prints_the_id_and_where_to_look(dreamq, queue):
    result = dreamq("submit", "steps", "--steps", 3, "--label", "who=me", "--priority", "high")
    assert "no worker takes jobs now" in result.stderr

    job = queue.get(result.stdout.strip())
    assert result.exit_code == 0
    assert (job.params["steps"], job.labels, job.priority) == (3, {"who": "me"}, "high")
    assert f"dreamq watch {job.id}" in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["submit", "deepdraem"],
            "there is no kind 'deepdraem' (did you mean deepdream?); there are lstm_train, ",
        ),
        (["kinds", "deepdraem"], "there is no kind 'deepdraem' (did you mean deepdream?)"),
        (["list", "--kind", "deepdraem"], "(did you mean deepdream?)"),
        (
            ["submit", "style_transfer", "--content-image", "{a}", "--style-images", "{a}", "{b}", "{a}"],
            "'{b}' belongs to no option; repeat it for each value: --style-images {a} --style-images {b}",
        ),
        (
            ["submit", "style_transfer", "--content-image={a}", "--style-images={a}", "{b}"],
            "--style-images {a} --style-images {b}",
        ),
        # The stray word stands there as an option's value, too.
        (
            ["submit", "deepdream", "--image", "{a}", "--label", "a=1", "a=1"],
            "'a=1' belongs to no option; repeat it for each value: --label a=1 --label a=1",
        ),
        (
            ["submit", "style_transfer", "--style-images", "{a}", "--content-image", "{a}", "{a}"],
            "'{a}' belongs to no option: a kind's parameters are all options",
        ),
        (
            ["submit", "style_transfer", "--content-image", "{a}", "--style-images", "{a}", "{a}"],
            "'{a}' belongs to no option; repeat it for each value: --style-images {a} --style-images {a}",
        ),
        (["submit", "steps", "--label=", "x"], "'x' belongs to no option; repeat it for each value: --label"),
        (["submit", "steps", "x", "--label", "x"], "'x' belongs to no option: a kind's parameters are all"),
        (["submit", "steps", "many"], "'many' belongs to no option: a kind's parameters are all options"),
        (
            ["submit", "steps", "--steps", "1", "2"],
            "'2' belongs to no option: a kind's parameters are all options",
        ),
        (["submit", "steps", "--latest", "true"], "'true' belongs to no option"),
        (["submit", "steps", "--image", "{folder}"], "'{folder}' is a folder: name a file"),
        (
            ["submit", "gan_train", "--dataset", "{folder}"],
            "'{folder}' is a folder: name a file, such as a zip of it",
        ),
    ],
)
def test_a_slip_of_the_hand_is_told_with_what_was_meant(dreamq, tmp_path, words, says):
    files = {"a": tmp_path / "a.jpg", "b": tmp_path / "b.jpg", "folder": tmp_path}
    for name in "ab":
        files[name].write_bytes(b"x")

    result = dreamq(*(word.format(**files) for word in words))

    assert result.exit_code == 2
    assert says.format(**files) in one_line(result)


def test_an_empty_list_says_in_a_sentence_why_it_is_empty(dreamq):
    assert dreamq("list").stderr == "there are no jobs yet: dreamq submit KIND makes one\n"
    assert dreamq("list", "--status", "failed").stderr == "no job fits\n"
    dreamq("submit", "steps")
    assert dreamq("list").stderr == ""


def test_a_worker_that_is_silent_for_longer_than_a_lease_is_lost_and_not_idle(dreamq, queue):
    """It is shown for three leases (the key's life); its jobs are taken from it after one."""
    for name, silent_ms in (("a@h", 29_000), ("b@h", 31_000)):
        info = {
            "name": name,
            "host": "h",
            "device": "cpu",
            "queues": [],
            "state": "ready",
            "lease_ms": 30_000,
        }
        queue.registry.announce(name, info, ttl_ms=90_000)
        queue.store.redis.zadd("dreamq:workers", {name: queue.store.now_ms() - silent_ms})

    runs = [line.split("\t")[-1] for line in dreamq("workers").stdout.splitlines()[1:]]

    assert sorted(run.partition(":")[0] for run in runs) == ["idle", "lost"]
    assert [worker["lost"] for worker in json.loads(dreamq("workers", "--json").stdout)] == [True, False]


def test_a_file_is_uploaded_where_the_parameter_names_an_upload(dreamq, queue, chelsea):
    result = dreamq("submit", "steps", "--image", chelsea)

    upload_id = queue.get(result.stdout.strip()).params["image"]
    assert queue.storage.upload_path(upload_id).read_bytes() == chelsea.read_bytes()


def test_submit_and_wait_ends_as_the_job_does(dreamq, working):
    good = dreamq("submit", "steps", "--steps", 2, "--wait")
    bad = dreamq("submit", "steps", "--steps", 2, "--trouble", "diverge", "--wait")

    assert (good.exit_code, good.stdout.split()[-1]) == (0, "succeeded")
    assert bad.exit_code == 1
    assert one_line(bad) == "failed: the loss is NaN at step 3 (diverged)"


def test_watch_tells_what_happens_line_by_line_where_there_is_no_terminal(dreamq, working):
    result = dreamq("submit", "steps", "--steps", 2, "--checkpoint-every", 1, "--watch")

    assert result.exit_code == 0
    told = result.stderr.splitlines()
    assert [line for line in told if not line.startswith("step")][:-1] == [
        "queued", "running", "file preview-0001.txt", "file preview-0002.txt", "file result.txt",
    ]  # fmt: skip
    assert "step 2 of 2" in told


def test_watching_an_ended_job_tells_its_story_and_its_end(dreamq, working):
    job_id = dreamq("submit", "steps", "--trouble", "diverge", "--wait").stdout.split()[0]

    result = dreamq("watch", job_id)

    assert result.exit_code == 1
    assert "running" in result.stderr


def test_ctrl_c_leaves_the_job_running_and_says_so(dreamq, queue, monkeypatch):
    job_id = dreamq("submit", "steps").stdout.strip()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("api.watch.watch_job", interrupted)
    result = dreamq("watch", job_id)

    assert result.exit_code == 130
    assert f"the job goes on: dreamq watch {job_id}" in result.stderr
    assert queue.get(job_id).stop is None


def test_a_broken_picture_is_told_by_the_parameter_that_named_it(dreamq, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")

    result = dreamq("submit", "steps", "--image", tmp_path / "broken.jpg")

    assert result.exit_code == 2
    assert one_line(result).startswith("Error: image: ")


def test_status_shows_a_job(dreamq, run_queued):
    job_id = dreamq("submit", "steps", "--steps", 2).stdout.strip()
    assert "position  1" in dreamq("status", job_id).stdout
    run_queued(job_id)

    shown = dreamq("status", job_id).stdout

    assert "succeeded" in shown
    assert "2 of 2" in shown
    assert "result.txt" in shown
    assert "summary   steps: 2" in shown


def test_list_shows_jobs_and_how_to_see_more(dreamq):
    ids = [dreamq("submit", "steps", "--label", "who=me").stdout.strip() for _ in range(3)]

    result = dreamq("list", "--limit", 2, "--label", "who=me")

    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["job", ids[2], ids[1]]
    more = result.stderr.split("dreamq ")[1].split()
    assert dreamq(*more).stdout.splitlines()[1].startswith(ids[0])


def test_get_downloads_all_files_or_those_that_are_named(dreamq, run_queued, tmp_path):
    job_id = dreamq("submit", "steps", "--steps", 2, "--checkpoint-every", 1, "--seed", 7).stdout.strip()
    run_queued(job_id)

    one = dreamq("get", job_id, "result.txt", "--into", tmp_path / "one")
    everything = dreamq("get", job_id, "--into", tmp_path / "all")

    assert one.stdout.strip() == str(tmp_path / "one" / "result.txt")
    assert (tmp_path / "one" / "result.txt").read_text() == chain(2, 7)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "preview-0001.txt",
        "preview-0002.txt",
        "result.txt",
    ]
    assert len(everything.stdout.splitlines()) == 3


def test_get_names_the_files_there_are(dreamq, run_queued, tmp_path):
    job_id = dreamq("submit", "steps", "--steps", 1).stdout.strip()
    run_queued(job_id)

    result = dreamq("get", job_id, "resutl.txt", "--into", tmp_path)

    assert result.exit_code == 2
    assert "result.txt" in one_line(result)


def test_get_of_a_job_that_left_no_files_says_how_it_ended(dreamq, run_queued, tmp_path):
    job_id = dreamq("submit", "steps", "--trouble", "diverge").stdout.strip()
    waiting = dreamq("get", job_id, "--into", tmp_path)
    run_queued(job_id)

    result = dreamq("get", job_id, "--into", tmp_path)

    assert (waiting.exit_code, "no files yet: it is queued" in waiting.stderr) == (0, True)
    assert result.exit_code == 1
    assert "failed: the loss is NaN at step 3 (diverged)" in result.stderr


def test_cancel_says_what_becomes_of_the_job(dreamq, queue, run_queued):
    job_id = dreamq("submit", "steps").stdout.strip()
    done = dreamq("submit", "steps", "--steps", 1).stdout.strip()
    run_queued(done)

    assert dreamq("cancel", job_id).stdout == f"{job_id} is cancelled\n"
    assert dreamq("cancel", done).stdout == f"{done} has succeeded\n"
    assert queue.get(job_id).status == "cancelled"


def test_kinds_and_workers_are_listed(dreamq, queue):
    queue.registry.announce("w1@here", {"name": "w1@here", "host": "here", "device": "cpu"}, ttl_ms=10_000)

    assert "steps\tCount" in dreamq("kinds").stdout
    assert "w1@here\there\tcpu\tidle" in dreamq("workers").stdout


def test_without_workers_it_says_how_to_start_one(dreamq):
    assert "python -m workers" in dreamq("workers").stderr


@pytest.mark.parametrize("words", ["submit steps", "list", "kinds", "kinds steps", "workers"])
def test_everything_is_to_be_had_as_json(dreamq, words):
    json.loads(dreamq(*words.split(), "--json").stdout)


def test_the_json_of_a_job_is_the_apis(dreamq, run_queued, client, tmp_path):
    job_id = json.loads(dreamq("submit", "steps", "--steps", 1, "--json").stdout)["id"]
    run_queued(job_id)
    job = client.get(f"/v1/jobs/{job_id}").get_json()

    for command in ("status", "watch", "cancel"):
        assert json.loads(dreamq(command, job_id, "--json").stdout) == job
    assert json.loads(dreamq("get", job_id, "--into", tmp_path, "--json").stdout) == [
        str(tmp_path / "result.txt")
    ]


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        ("status 00000000000000000000000000", 2, "`dreamq list`"),
        ("watch nonsense", 2, "`dreamq list`"),
        ("get 00000000000000000000000000", 2, "`dreamq list`"),
        ("cancel 00000000000000000000000000", 2, "`dreamq list`"),
        ("kinds nothing", 2, "`dreamq kinds`"),
        ("submit steps --steps 0", 2, "--steps"),
        ("submit steps --image /no/such.jpg", 2, "no file '/no/such.jpg'"),
        ("submit steps --label who", 2, "NAME=VALUE"),
        ("submit steps --depends-on 00000000000000000000000000", 2, "no job 0"),
        ("submit nothing", 2, "nothing"),
        ("list --cursor x", 2, "cursor"),
        ("--url http://127.0.0.1:9 list", 3, "make serve"),
        ("submit lstm_sample --model-job nonsense", 2, "'nonsense' is not the id of a job: `dreamq list`"),
        ("--url 127.0.0.1:9 list", 3, "no dreamq server answers at http://127.0.0.1:9"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(dreamq, words, exit_code, said):
    result = dreamq(*words.split())

    assert result.exit_code == exit_code
    assert said in one_line(result)


def test_an_idempotency_key_used_for_another_job_is_told(dreamq):
    dreamq("submit", "steps", "--steps", 1, "--idempotency-key", "once")

    result = dreamq("submit", "steps", "--steps", 2, "--idempotency-key", "once")

    assert result.exit_code == 2
    assert "--idempotency-key" in one_line(result)


# dreamq admin keys: on the server's host, without a server


@pytest.fixture
def admin(tmp_path, monkeypatch):
    """Run `dreamq admin keys` with a key file set, and nothing that answers."""
    monkeypatch.setenv("API_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("DREAMQ_URL", "http://127.0.0.1:9")

    def run(*words):
        return CliRunner().invoke(main, ["admin", "keys", *words], catch_exceptions=False)

    return run


def test_a_key_is_made_shown_once_listed_by_name_and_removed(admin, tmp_path):
    key = admin("add", "ada").stdout.strip()

    assert keys.KeyFile(tmp_path / "keys").knows(key)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    listed = admin("list")
    assert "ada" in listed.stdout
    assert key not in listed.stdout
    assert json.loads(admin("list", "--json").stdout)[0]["name"] == "ada"
    assert admin("remove", "ada").exit_code == 0
    assert not keys.KeyFile(tmp_path / "keys").knows(key)


def test_the_key_that_admin_made_opens_the_server(admin, settings, tmp_path, monkeypatch):
    from api.app import create_app

    key = admin("add", "ada").stdout.strip()
    client = create_app(settings.model_copy(update={"api_keys_file": tmp_path / "keys"})).test_client()

    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_admin_errors_are_one_line_too(admin, monkeypatch):
    admin("add", "ada")

    assert "already" in one_line(admin("add", "ada"))
    assert "bob" in one_line(admin("remove", "bob"))
    monkeypatch.delenv("API_KEYS_FILE")
    assert "API_KEYS_FILE" in one_line(admin("list"))
    monkeypatch.setenv("LEASE_S", "soon")
    assert "LEASE_S" in one_line(admin("list"))


def every_command(group, path=()):
    """Each command with its words."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield (*path, name), command
        if hasattr(command, "list_commands"):
            yield from every_command(command, (*path, name))


@pytest.mark.parametrize("words", [words for words, _ in every_command(main)], ids=" ".join)
def test_every_command_has_help(words):
    result = CliRunner().invoke(main, [*words, "--help"])

    assert result.exit_code == 0
    assert result.stdout.splitlines()[2].strip()
