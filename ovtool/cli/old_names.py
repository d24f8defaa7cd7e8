"""Names of flags before version 0.1, and those that took their places. They are answered for one version."""

_TRAINING = {"--rate": "--lr", "--workers": "--loader-workers"}

OLD_NAMES: dict[str, dict[str, str]] = {
    "segment": {},
    "propose": {"--embeddings": "--save-embeddings"},
    "train-proposer": _TRAINING,
    "train-segmenter": _TRAINING,
    "train-pacl": {**_TRAINING, "--decay": "--weight-decay"},
    "cam": {"--start": "--begin", "--rate": "--lr"},
    "refine": {"--steps": "--apply", "--rate": "--lr"},
    "tune-prompts": {**_TRAINING, "--tower-rate": "--tower-lr"},
    "probe alignment": {"--picture": "--plot"},
    "probe coherence": {"--pairs": "--sample", "--picture": "--plot"},
    "probe classify": {"--picture": "--plot"},
    "data make": {"--images": "--count"},
}
"""Command to old flag to new flag; a command with a group before it is written with a space."""
