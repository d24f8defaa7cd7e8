"""ovtool: images segmented by words, and the models that do it.

    import ovtool

    segmenter = ovtool.Segmenter("teapot,apple", model="tiny")    # loads the model once
    masks = segmenter("photo.jpg")                                # an array, a PIL image or a path
    masks["teapot"]                                               # bool (H, W)

Every command is a function with the names and the defaults of its options, and every group of options
is a class:

    ovtool.segment("photos/", "teapot,apple", method=ovtool.Patch(flip=True), out="photos.json")

`import ovtool` loads nothing else; what is used is loaded when it is used.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ovtool.errors import (
        InputError,
        MismatchError,
        ModelError,
        OutputExistsError,
        OvtoolError,
        UpToDate,
        UsageError,
    )
    from ovtool.masks import Masks
    from ovtool.segmenter import Segmenter
    from ovtool.settings.cam import (
        ClassifierMaps,
        GivenMaps,
        Gradcam,
        LabelMatching,
        PaclMaps,
        Spread,
    )
    from ovtool.settings.convert import Conversion
    from ovtool.settings.data import Scenes
    from ovtool.settings.evaluate import (
        AveragePrecision,
        BoundaryIou,
        MeanIou,
        Panoptic,
        Recall,
        Seeds,
    )
    from ovtool.settings.pacl import Pacl
    from ovtool.settings.pairs import Matching, Nouns
    from ovtool.settings.probe import Alignment, Classify, Coherence, Oracle
    from ovtool.settings.prompts import BackgroundPrompts, MaskPrompts
    from ovtool.settings.propose import Propose
    from ovtool.settings.proposer import ProposerTraining
    from ovtool.settings.refine import Apply, PromptStep, PseudoMasks
    from ovtool.settings.report import Page
    from ovtool.settings.segment import Drawn, Fused, Patch, Trained, TwoStage
    from ovtool.settings.segmenter import SegmenterTraining
    from ovtool.settings.shared import Compute, Run, Source, Training
    from ovtool.settings.words import Words
    from ovtool.stages.cam import run as cam
    from ovtool.stages.check import run as check
    from ovtool.stages.convert import run as convert
    from ovtool.stages.data_list import run as data_list
    from ovtool.stages.data_make import run as data_make
    from ovtool.stages.doctor import run as doctor
    from ovtool.stages.evaluate import run as evaluate
    from ovtool.stages.info import run as info
    from ovtool.stages.merge import run as merge
    from ovtool.stages.mine_pairs import run as mine_pairs
    from ovtool.stages.probe_alignment import run as probe_alignment
    from ovtool.stages.probe_classify import run as probe_classify
    from ovtool.stages.probe_coherence import run as probe_coherence
    from ovtool.stages.probe_oracle import run as probe_oracle
    from ovtool.stages.propose import run as propose
    from ovtool.stages.refine import run as refine
    from ovtool.stages.report import run as report
    from ovtool.stages.segment import run as segment
    from ovtool.stages.train_pacl import run as train_pacl
    from ovtool.stages.train_proposer import run as train_proposer
    from ovtool.stages.train_segmenter import run as train_segmenter
    from ovtool.stages.tune_prompts import run as tune_prompts
    from ovtool.training.loop import TrainingError

    __version__: str

__all__ = [
    "Alignment", "Apply", "AveragePrecision", "BackgroundPrompts", "BoundaryIou",
    "ClassifierMaps", "Classify", "Coherence", "Compute", "Conversion", "Drawn",
    "Fused", "GivenMaps", "Gradcam", "InputError", "LabelMatching", "MaskPrompts", "Masks",
    "Matching", "MeanIou", "MismatchError", "ModelError", "Nouns", "Oracle",
    "OutputExistsError", "OvtoolError", "Pacl", "PaclMaps", "Page", "Panoptic", "Patch",
    "PromptStep", "Propose", "ProposerTraining", "PseudoMasks", "Recall", "Run", "Scenes",
    "Seeds", "Segmenter", "SegmenterTraining", "Source", "Spread", "Trained", "Training",
    "TrainingError", "TwoStage", "UpToDate", "UsageError", "Words", "__version__", "cam",
    "check", "convert", "data_list", "data_make", "doctor", "evaluate", "info", "merge",
    "mine_pairs", "probe_alignment", "probe_classify", "probe_coherence", "probe_oracle",
    "propose", "refine", "report", "segment", "train_pacl", "train_proposer", "train_segmenter",
    "tune_prompts",
]  # fmt: skip

# The names of modules. Other errors are in `errors`; a command's function is `run` of the stage of its name.
_NAMES = {
    "errors": "UpToDate",
    "masks": "Masks",
    "segmenter": "Segmenter",
    "settings.cam": "ClassifierMaps GivenMaps Gradcam LabelMatching PaclMaps Spread",
    "settings.convert": "Conversion",
    "settings.data": "Scenes",
    "settings.evaluate": "AveragePrecision BoundaryIou MeanIou Panoptic Recall Seeds",
    "settings.pacl": "Pacl",
    "settings.pairs": "Matching Nouns",
    "settings.probe": "Alignment Classify Coherence Oracle",
    "settings.prompts": "BackgroundPrompts MaskPrompts",
    "settings.propose": "Propose",
    "settings.proposer": "ProposerTraining",
    "settings.refine": "Apply PromptStep PseudoMasks",
    "settings.report": "Page",
    "settings.segment": "Drawn Fused Patch Trained TwoStage",
    "settings.segmenter": "SegmenterTraining",
    "settings.shared": "Compute Run Source Training",
    "settings.words": "Words",
    "training.loop": "TrainingError",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """What is asked for, loaded now."""
    if name == "__version__":
        return _version()
    if name not in __all__:
        raise AttributeError(f"module 'ovtool' has no attribute '{name}'")
    from importlib import import_module

    module, attribute = _MODULES.get(name), name
    if module is None:
        is_error = name.endswith("Error")
        module, attribute = ("errors", name) if is_error else (f"stages.{name}", "run")
    value = getattr(import_module(f"ovtool.{module}"), attribute)
    if module.startswith("stages."):
        from ovtool.inputs.addresses import with_addresses

        value = with_addresses(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ovtool")
    except PackageNotFoundError:
        return "0.0.0+source"  # a source tree that was not installed
