"""What a probe works with: images with masks and words, and a CLIP with its PACL head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ovtool.formats import atomic, lock
from ovtool.inputs import asked, embedded_words, truths
from ovtool.inputs.embedded_words import EmbeddedWords
from ovtool.inputs.truths import Probed
from ovtool.models import resolve
from ovtool.runtime import device as devices
from ovtool.settings.probe import Alignment, Classify, Coherence, Oracle
from ovtool.settings.shared import Compute, Run, Source

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.pacl import Head


Settings = Alignment | Classify | Coherence | Oracle


@dataclass(frozen=True, eq=False)
class Probe:
    """A model, and the images that it is probed on.

    Attributes:
        truth: the images, their masks and words.
        clip: the model.
        head: its PACL head, where one is probed.
        device: where the work is computed.
    """

    truth: Probed
    clip: Clip
    head: Head | None
    device: torch.device

    def embedded(self, templates: str) -> EmbeddedWords:
        """The words of the run in the space of the CLIP; those that it never learned are named in one warning."""
        from ovtool.models import text

        text.warn_unlearned(self.clip, self.truth.words.names)
        return embedded_words.of(self.clip, self.truth.words, templates)

    def contents(self, settings: Settings) -> dict[str, str]:
        """What stands for the paths in the settings of a probe: names and fingerprints."""
        lists = _lists(settings)
        contents = {} if lists is None else {"classes_per_image": lists.name}
        return contents if self.head is None else {**contents, "pacl": self.head.fingerprint}


def plot_place(
    plot: str | Path | None, run: Run, settings: object, data_set: str | Path | None, source: Source
) -> Path | None:
    """Where a plot goes; a place that must not be written to is refused before any work.

    Args:
        plot: what was asked for, None for no plot.
        run: whether a file may be replaced.
        settings: those of the probe, which may name files.
        data_set: what is read, by name or as a folder.
        source: the same as a COCO JSON with its images.

    Raises:
        UsageError: the probe reads that file.
        OutputExistsError, InputError.
    """
    if plot is None:
        return None
    atomic.check_output(Path(plot), run.overwrite)
    read = asked.of("probe", settings, sources=(data_set, source.coco), folder=source.images)
    asked.refuse_inputs([Path(plot)], read.files)
    return Path(plot)


@contextmanager
def plotting(place: Path | None, run: Run) -> Iterator[None]:
    """The right to write a plot while the block lasts. Raises OutputExistsError where another run has it, or has
    written it since `plot_place`."""
    with lock.held(place):
        if place is not None:
            atomic.check_output(place, run.overwrite)
        yield


def _lists(settings: Settings) -> Path | None:
    """The file of the words that compete in each image, where one is given."""
    return None if isinstance(settings, Coherence) else settings.classes_per_image


def planned(data_set: str | None, source: Source, settings: Settings) -> dict[str, Any]:
    """What a dry run returns: the number of images and words. Its arguments are those of `opened`."""
    truth = truths.open_probed(data_set, source, _lists(settings))
    return {"images": len(truth.items), "words_an_image": truth.words_an_image, "dry_run": True}


def opened(data_set: str | None, source: Source, settings: Settings, compute: Compute) -> Probe:
    """Opens the images, then loads the model.

    Args:
        data_set: a data set with masks, by name or folder; None where `source` names a COCO JSON.
        source: a COCO JSON with masks and the folder of its images, and their greatest number.
        settings: of the probe. Without a file of words for each image, a data set may bring its own, and
            else all categories of the truth compete.
        compute: the CLIP, and where and how it computes.

    Raises:
        UsageError, InputError, ModelError, MismatchError.
    """
    compute = resolve.for_data(compute, data_set)
    devices.set_threads(compute.threads)
    place = devices.choose(compute.device)
    truth = truths.open_probed(data_set, source, _lists(settings))
    from ovtool.models import clip as clips
    from ovtool.models import pacl as heads

    clip = clips.load(compute.model, place, devices.precision(compute.precision, place))
    pacl = "none" if isinstance(settings, Oracle) else settings.pacl
    head = heads.choose(None if pacl is None else str(pacl), clip)
    return Probe(truth, clip, head, place)
