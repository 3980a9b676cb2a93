"""Write with a trained character-level LSTM: continue a prompt, once or many times."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from shared.errors import InvalidInput
from shared.kinds.base import FileId, Inputs, JobId, JobParams
from shared.kinds.lstm_train import LstmTrainParams, Temperature
from shared.vocabulary import Unknown, Vocabulary

LARGEST_BATCH = 256
_SIGNATURES = (b"PK\x03\x04", b"\x89HDF\r\n\x1a\n")


class LstmSampleParams(JobParams):
    """Write with a trained character-level LSTM: continue a prompt, once or many times."""

    kind: ClassVar[str] = "lstm_sample"

    model_job: JobId | None = None
    """The training whose model writes; this, or `weights` with `vocabulary`."""
    weights: FileId | None = None
    """Uploaded weights of an LSTM: `.keras`, `.weights.h5` or `.npz`. Only their numbers are read."""
    vocabulary: FileId | None = None
    """The `vocabulary.json` of the uploaded weights (or a JSON list of their characters, in order)."""
    prompt: str = Field("", max_length=100_000)
    """The text to continue; left empty, a random place of the training text, which the summary tells."""
    unknown: Unknown = "refuse"
    """What to do with characters of the prompt that the model has never seen: `refuse` the job, `drop` them, or
    `replace` each by a space."""
    length: int = Field(400, ge=1, le=1_000_000)
    """How many new characters to write."""
    temperatures: list[Temperature] = Field([0.5], min_length=1, max_length=64)
    """Softmax temperatures: 0 always takes the likeliest character (greedy), 1 follows the model, more is wilder."""
    samples: int = Field(1, ge=1, le=LARGEST_BATCH)
    """Texts per temperature, all from the same prompt."""
    top_k: int | None = Field(None, ge=1)
    """Choose among the k likeliest characters only."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Choose among the likeliest characters that together have this probability only (after the temperature)."""
    score_prompt: bool = False
    """Tell how well the model foresees the prompt, in bits per character (from its second character on)."""
    stream: bool = False
    """Send the text as `text` events while it grows."""

    def check(self, inputs: Inputs) -> None:
        """Refuse a model that cannot be had and a prompt that it cannot read, as far as both are known.

        Raises:
            InvalidInput: naming the field.
        """
        self._check_source()
        if len(self.temperatures) * self.samples > LARGEST_BATCH:
            most = LARGEST_BATCH // len(self.temperatures)
            message = f"all texts are written at once, at most {LARGEST_BATCH}: so {most} here"
            raise InvalidInput(message, field="samples")
        if self.score_prompt and len(self.prompt) < 2:
            raise InvalidInput("a score takes a prompt of at least 2 characters", field="prompt")
        vocabulary = self._vocabulary(inputs)
        if vocabulary is not None:
            self.check_prompt(vocabulary)

    def check_prompt(self, vocabulary: Vocabulary) -> tuple[str, str]:
        """The prompt as the model can read it, and its unknown characters; both empty for an empty one.

        Raises:
            InvalidInput: there is no prompt to be had.
        """
        if not self.prompt:
            if not vocabulary.places:
                raise InvalidInput(
                    "this vocabulary comes without places of its text: give a prompt", field="prompt"
                )
            return "", ""
        return vocabulary.known(self.prompt, self.unknown)

    def _check_source(self) -> None:
        if self.model_job is not None:
            for name in ("weights", "vocabulary"):
                if getattr(self, name) is not None:
                    raise InvalidInput(
                        f"either model_job or uploads say what writes: leave {name} out", field=name
                    )
        elif self.weights is None:
            raise InvalidInput("say what writes: model_job, or weights with vocabulary", field="model_job")
        elif self.vocabulary is None:
            raise InvalidInput(
                "uploaded weights need the vocabulary that they were trained with", field="vocabulary"
            )

    def _vocabulary(self, inputs: Inputs) -> Vocabulary | None:
        """The model's vocabulary; None while the training has not ended."""
        if self.model_job is None:
            return self._uploaded_vocabulary(inputs)
        job = inputs.job(self.model_job, "model_job")
        if job.kind != LstmTrainParams.kind:
            message = f"job {job.id} is of the kind {job.kind}, not {LstmTrainParams.kind}"
            raise InvalidInput(message, field="model_job")
        if not job.status.ended:
            return None
        return Vocabulary.parse(inputs.artifact(job.id, "vocabulary.json", "model_job"), field="model_job")

    def _uploaded_vocabulary(self, inputs: Inputs) -> Vocabulary:
        with open(inputs.path(self.weights or "", "weights"), "rb") as file:
            head = file.read(8)
        if not head.startswith(_SIGNATURES):
            raise InvalidInput("not weights: a .keras, .weights.h5 or .npz file is needed", field="weights")
        data = Path(inputs.path(self.vocabulary or "", "vocabulary")).read_bytes()
        return Vocabulary.parse(data, field="vocabulary")

    def forecast_bytes(self, inputs: Inputs) -> int:
        """The texts as ids, and as strings at the end (bytes); the network is small beside them."""
        return len(self.temperatures) * self.samples * self.length * 16
