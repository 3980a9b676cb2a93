"""The table of contents: every kind of job, by name."""

import importlib

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
