"""A kind's parameters as command-line options: every shape that a model can have."""

from pathlib import Path
from typing import ClassVar, Literal

import click
import pytest
from pydantic import BaseModel, Field

from api.options import LocalFile, options_of, scalar, values_of, with_files
from api.submit import job_options
from shared.kinds import KINDS
from shared.kinds.base import FileId, JobId, JobParams, PictureId


class EveryShape(JobParams):
    """One parameter of each shape."""

    kind: ClassVar[str] = "every_shape"

    image: PictureId
    """A picture."""
    more_images: list[PictureId] = Field([])
    """More pictures."""
    weights: FileId | None = None
    """Weights."""
    model_job: JobId | None = None
    """An earlier job."""
    octaves: int = Field(3, ge=1, le=8)
    """How many
    scales."""
    octave_scale: float = Field(1.4, gt=1.0, le=2.0)
    """Their ratio."""
    max_loss: float | None = 10.0
    """When to stop."""
    network: Literal["inception_v3", "vgg16"] = "inception_v3"
    """Which network."""
    latent_dim: Literal[2, 16] = 2
    """How wide."""
    layers: dict[str, float] | Literal["geometric", "creatures"] | None = None
    """Which layers."""
    words: dict[str, str] = Field({})
    """Names and texts."""
    sizes: list[int] = Field([1, 2])
    """Sizes."""
    size_or_sizes: int | list[int] = 1
    """One or many."""
    keep: bool = True
    """Whether to keep."""
    prompt: str = ""
    """What to begin with."""


@pytest.fixture
def cat(tmp_path):
    """A file to upload."""
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"cat")
    return path


def parsed(*words):
    """The parameters that a command line gives."""
    found = {}

    @click.pass_context
    def keep(context, **given):
        found.update(values_of(EveryShape, given))

    command = click.Command("every_shape", params=options_of(EveryShape), callback=keep)
    command.main([str(word) for word in words], standalone_mode=False)
    return found


def test_what_is_left_out_is_left_to_the_server(cat):
    assert parsed("--image", cat) == {"image": LocalFile(cat)}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--octaves", "4"], "octaves", 4),
        (["--octave-scale", "1.5"], "octave_scale", 1.5),
        (["--octave-scale", "2"], "octave_scale", 2),
        (["--octave-scale", "1.5e0"], "octave_scale", 1.5),
        (["--max-loss", "12"], "max_loss", 12),
        (["--network", "vgg16"], "network", "vgg16"),
        (["--latent-dim", "16"], "latent_dim", 16),
        (["--layers", "geometric"], "layers", "geometric"),
        (["--layers", "mixed4=1.5, mixed5=2"], "layers", {"mixed4": 1.5, "mixed5": 2}),
        (["--layers", '{"mixed4": 1.5}'], "layers", {"mixed4": 1.5}),
        (["--words", "a=b, c", "--words", "d=e=f"], "words", {"a": "b, c", "d": "e=f"}),
        (["--max-loss", "null"], "max_loss", None),
        (["--prompt", "null"], "prompt", "null"),
        (["--layers", "mixed4=1.5", "--layers", "mixed5=2"], "layers", {"mixed4": 1.5, "mixed5": 2}),
        (["--sizes", "3", "--sizes", "4"], "sizes", [3, 4]),
        (["--sizes", "3"], "sizes", [3]),
        (["--size-or-sizes", "3"], "size_or_sizes", 3),
        (["--size-or-sizes", "3", "--size-or-sizes", "4"], "size_or_sizes", [3, 4]),
        (["--keep"], "keep", True),
        (["--no-keep"], "keep", False),
        (["--prompt", "1"], "prompt", "1"),
        (["--prompt", "a=b"], "prompt", "a=b"),
        (["--model-job", "0" * 26], "model_job", "0" * 26),
        (["--weights", "a" * 64], "weights", "a" * 64),
        (["--seed", "7"], "seed", 7),
    ],
)
def test_a_value_is_typed_as_the_model_wants_it(cat, words, name, value):
    found = parsed("--image", cat, *words)[name]

    assert (found, type(found)) == (value, type(value))


def test_files_are_found_wherever_a_parameter_names_an_upload(cat):
    found = parsed("--image", cat, "--more-images", cat, "--more-images", "b" * 64)

    assert found["more_images"] == [LocalFile(cat), "b" * 64]
    assert with_files(found, lambda file: file.path.name)["more_images"] == ["cat.jpg", "b" * 64]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--image"),
        (["--image", "/no/such/file.jpg"], "--image"),
        (["--octaves", "many"], "--octaves"),
        (["--octaves", "null"], "--octaves"),
        (["--layers", "mixed4=1,geometric"], "--layers"),
        (["--layers", '{"mixed4": '], "--layers"),
        (["--octaves", "9"], "--octaves"),
        (["--octave-scale", "nan"], "--octave-scale"),
        (["--network", "vgg17"], "--network"),
        (["--layers", "dull"], "--layers"),
        (["--layers", "mixed4=much"], "--layers"),
        (["--layers", "mixed4=1", "--layers", "geometric"], "--layers"),
        (["--sizes", "x"], "--sizes"),
        (["--octavs", "4"], "--octavs"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_before_anything_is_uploaded(cat, words, named):
    given = words if not words or "--image" in words else ["--image", str(cat), *words]

    with pytest.raises(click.UsageError) as caught:
        parsed(*given)

    assert named in caught.value.format_message()


def help_of(params):
    """The help text of a kind's options, on long lines."""
    command = click.Command("x", params=options_of(params))
    return command.get_help(click.Context(command, terminal_width=1000, max_content_width=1000))


def test_help_says_what_each_parameter_means_what_it_takes_and_its_default():
    text = help_of(EveryShape)

    assert "--octaves INTEGER" in text
    assert "How many scales.  [default: 3]  [>= 1, <= 8]" in text
    assert "--image FILE" in text
    assert "--more-images FILE" in text
    assert "--model-job JOB" in text
    assert "--layers NAME=VALUE|geometric|creatures" in text
    assert "--network inception_v3|vgg16" in text
    assert "--keep / --no-keep" in text


@pytest.mark.parametrize("params", KINDS.values(), ids=list(KINDS))
def test_every_kind_can_be_submitted_from_the_command_line(params: type[JobParams]):
    own = {flag for option in job_options() for flag in option.opts}
    flags = [flag for option in options_of(params) for flag in option.opts]

    assert len(flags) == len(set(flags))
    assert not own & set(flags), "a parameter hides an option that all jobs have"
    assert {f"--{name.replace('_', '-')}" for name in params.model_fields} == set(flags)
    assert help_of(params)


def test_a_parameter_that_is_a_model_of_its_own_is_not_lost(cat):
    class Inner(BaseModel):
        width: int = 1

    class Outer(JobParams):
        kind: ClassVar[str] = "outer"
        inner: Inner = Inner()
        """Nested."""

    assert values_of(Outer, {"inner": ("width=3",)}) == {"inner": {"width": 3}}


def test_a_file_may_be_named_from_the_home_folder(cat, monkeypatch):
    monkeypatch.setenv("HOME", str(cat.parent))

    assert parsed("--image", "~/cat.jpg") == {"image": LocalFile(Path(cat))}


def test_what_is_built_in_is_named_where_a_file_is_taken():
    [shape] = [{"type": "string", "format": "upload", "built_in": ["digits"]}]

    assert scalar("digits", [shape]) == "digits"
    with pytest.raises(ValueError, match="nothing built in of that name: there are digits"):
        scalar("digts", [shape])


def test_every_built_in_set_can_be_named_on_the_command_line():
    for kind in ("vae_train", "gan_train"):
        schema = KINDS[kind].model_json_schema()["properties"]["dataset"]
        assert [scalar(name, [schema]) for name in schema["built_in"]] == schema["built_in"]


def test_a_list_is_typed_with_commas_or_by_repeating_the_option(cat, tmp_path):
    comma = tmp_path / "a,b.jpg"
    comma.write_bytes(b"one picture")

    assert values_of(EveryShape, {"image": str(cat), "sizes": ("1,2", "3")})["sizes"] == [1, 2, 3]
    found = values_of(EveryShape, {"image": str(cat), "more_images": (f"{cat},{cat}", str(comma))})
    assert found["more_images"] == [LocalFile(cat), LocalFile(cat), LocalFile(comma)]


@pytest.mark.parametrize("typed", [("a=1,a=2",), ("a=1", "a=2"), ('{"a": 1, "a": 2}',)])
def test_a_name_that_comes_twice_is_refused(cat, typed):
    with pytest.raises(click.BadParameter, match="'a' is given twice") as refused:
        values_of(EveryShape, {"image": str(cat), "layers": typed})

    assert refused.value.param_hint == "--layers"
