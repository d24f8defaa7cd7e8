"""From an image to its record in the output, with whatever segmenter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.formats import parts, rle
from ovtool.formats.images import ImageItem
from ovtool.inputs.words import WordSet
from ovtool.outputs.drawn_files import DrawnFiles
from ovtool.runtime import engine, runs
from ovtool.segmenters.protocol import Segmented, Segmenter


def labels_and_scores(
    segmented: Segmented, indices: Sequence[int], only: Set[int] | None = None
) -> tuple[NDArray[np.int32], dict[int, float]]:
    """The result over all words of a run.

    Args:
        segmented: The result over the words of one image.
        indices: The place of each of these words among all.
        only: The words that are kept; pixels of others have no word. None keeps all.

    Returns:
        The index of each pixel's word, int32 (H, W), -1 where it has none; and the mean probability
        of each word of the image by index, in [0, 1], 0 for a word that is not seen.
    """
    places = np.array(indices, np.int32)
    local = segmented.class_map.label.numpy()
    means = segmented.class_map.mean_probability.tolist()
    scores = {int(k): round(mean, 6) for k, mean in zip(places, means, strict=True)}
    labels = np.where(local >= 0, places[local], -1).astype(np.int32)
    if only is not None:
        labels[~np.isin(labels, list(only))] = -1
        scores = {k: score for k, score in scores.items() if k in only}
    return labels, scores


def record_of(
    item: ImageItem, labels: NDArray[np.int32], scores: Mapping[int, float], words: WordSet
) -> dict[str, Any]:
    """The record of an image: a mask for each of its words that is seen, with its score."""
    ids = words.category_ids
    entries = [
        {"category_id": ids[index], "segmentation": mask, "score": scores[index]}
        for index, mask in rle.encode_label_map(labels, list(scores)).items()
    ]
    return parts.image_record(item.name, labels.shape[0], labels.shape[1], entries)


def part_output(
    items: Sequence[ImageItem], segmenter: Segmenter, files: DrawnFiles
) -> engine.PartOutput:
    """The records of a part, with a note of the batch size if memory forced it down.

    Args:
        items: The images of the part.
        segmenter: What names their pixels.
        files: What is drawn of each image on the way.
    """
    encode, words = segmenter.encoder(), segmenter.words
    note: dict[str, Any] = {}

    def record(item: ImageItem, rgb: NDArray[np.uint8]) -> parts.Record:
        segmented = segmenter.segment(item, rgb, encode)
        if encode.was_halved:
            note["batch_size"] = encode.batch_size
        indices = words.of_image(item.name)
        labels, scores = labels_and_scores(segmented, indices, words.only)
        files.write(item, rgb, labels, scores)
        files.write_heatmaps(
            item, rgb, segmented.rows, segmented.classes, indices, segmented.heat, words.only
        )
        return record_of(item, labels, scores, words)

    return engine.PartOutput(runs.image_records(items, record), note=note)
