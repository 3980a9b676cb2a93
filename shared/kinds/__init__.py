"""The table of contents: every kind of job, by name."""

import importlib
from difflib import get_close_matches

from shared.kinds.base import JobParams
from shared.kinds.deepdream import DeepDreamParams
from shared.kinds.gan_sample import GanSampleParams
from shared.kinds.gan_train import GanTrainParams
from shared.kinds.lstm_sample import LstmSampleParams
from shared.kinds.lstm_train import LstmTrainParams
from shared.kinds.style_transfer import StyleTransferParams
from shared.kinds.vae_sample import VaeSampleParams
from shared.kinds.vae_train import VaeTrainParams
from shared.settings import Settings


def no_such_kind(name: object) -> str:
    """What is said of a kind that there is not: which one may be meant, and all there are."""
    meant = get_close_matches(str(name)[:100], KINDS, n=1)
    guess = f" (did you mean {meant[0]}?)" if meant else ""
    return f"there is no kind {name!r:.100}{guess}; there are {', '.join(KINDS)}"


KINDS: dict[str, type[JobParams]] = {
    LstmTrainParams.kind: LstmTrainParams,
    LstmSampleParams.kind: LstmSampleParams,
    DeepDreamParams.kind: DeepDreamParams,
    StyleTransferParams.kind: StyleTransferParams,
    VaeTrainParams.kind: VaeTrainParams,
    VaeSampleParams.kind: VaeSampleParams,
    GanTrainParams.kind: GanTrainParams,
    GanSampleParams.kind: GanSampleParams,
}

# Kinds of your own: modules that hold a `PARAMS` class and, beside it or where its `task` says, a `run`.
for _module in filter(None, Settings.from_environment().extra_kinds.split(",")):
    _params: type[JobParams] = importlib.import_module(_module.strip()).PARAMS
    KINDS[_params.kind] = _params
