"""Two sets of labelled images brought together: images are matched by file name
(`formats.file_matching`), classes by name (`name_matching`), by the rules of `stages.evaluate`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovtool.datasets.name_matching import KnownNames
from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import file_matching, labelled
from ovtool.formats.file_matching import Names
from ovtool.formats.labelled import LabelledImages

BACKGROUND = "background"
UNLABELLED = -1


def match_images(truth: LabelledImages, predicted: LabelledImages) -> dict[str, str]:
    """Predicted image names to true ones; see rule 1 of `stages.evaluate`.

    Raises:
        InputError: two images of a side have the same name, or no image is in common.
    """
    true = Names(truth.source, truth.names, truth.by_stem)
    guessed = Names(predicted.source, predicted.names, predicted.by_stem)
    stems = truth.by_stem or predicted.by_stem
    # a label map of two images of one stem has the whole name of its own: a.bmp.png, without its ending
    with_stems: tuple[tuple[str, ...], ...] = (("name", "stem"), ("ending",), file_matching.ADDED)
    for rungs in with_stems if stems else (("name",), ("stem",), ("ending",)):
        if pairs := file_matching.match(guessed, true, rungs):
            return pairs
    examples = f"'{next(iter(guessed.names), '')}' and '{next(iter(true.names), '')}'"
    raise InputError(
        f"{predicted.source} and {truth.source} have no image in common (they hold {examples}); "
        "file names must agree"
    )


class Classes:
    """The classes of truth and prediction as one numbering: that of the truth, by name (`name_matching`).

    Attributes:
        names: of the K classes; `background` is added as the last one where `with_background` asks for it
            and the truth has no class of that name.
        matches: the true class of each predicted class, -1 for none.
        respelled: the predicted names that are true names in another spelling, each with the true name.
        unmatched: the predicted names that are none of the truth, each with the true name most alike, if any.
    """

    def __init__(
        self,
        truth: LabelledImages,
        predicted: LabelledImages,
        with_background: bool,
        ignore_label: Sequence[str],
    ) -> None:
        self._truth, self._predicted = truth, predicted
        self._index(truth.classes, with_background)
        background = self._known.of_spelling(BACKGROUND) if with_background else None
        self._background = UNLABELLED if background is None else background
        own = list(range(len(truth.classes)))
        # one entry a class, one for values that are no class but ignored, and last for unlabelled
        self._true = np.array([*own, UNLABELLED, self._background], dtype=np.int64)
        self._ignored_values: set[int] = set()
        for label in ignore_label:
            self._ignore(label)
        matches = self._match_all(predicted.classes)
        self.matches = tuple(matches)
        self._matches = np.array([*matches, self._background], dtype=np.int64)
        pairs = [(words[0], k) for words, k in zip(predicted.classes, matches, strict=True)]
        self.respelled = tuple(
            (name, self.names[k]) for name, k in pairs if k >= 0 and self._is_respelled(name, k)
        )
        self.unmatched = tuple(
            (name, self._known.nearest(name)) for name, k in pairs if k == UNLABELLED
        )
        beyond = iter(range(len(self.names), len(self.names) + len(self.unmatched)))
        every = [next(beyond) if k == UNLABELLED else k for k in matches]
        self._every = np.array([*every, self._background], dtype=np.int64)

    @property
    def every_name(self) -> list[str]:
        """The names of the K classes of the truth, then those of `unmatched`."""
        return [*self.names, *(name for name, _ in self.unmatched)]

    def notes(self) -> list[str]:
        """Lines about the names: matches by spelling, and predicted classes without a true class."""
        lines = []
        if self.respelled:
            pairs = [f"'{name}' is '{true}'" for name, true in self.respelled]
            lines.append(f"matched by their spelling: {labelled.shortened(pairs)}")
        if self.unmatched:
            listed = [
                f"'{name}'" + (f" (nearest: '{near}')" if near else "")
                for name, near in self.unmatched
            ]
            lines.append(
                f"{len(listed)} of the {len(self._predicted.classes)} predicted classes are none of "
                f"the truth, and count as errors: {labelled.shortened(listed)}"
            )
        return lines

    def check_in_common(self) -> None:
        """Raises MismatchError where not one predicted class is one of the truth."""
        if not self.unmatched or len(self.unmatched) < len(self._predicted.classes):
            return
        own = labelled.shortened([name for name, _ in self.unmatched], 3)
        true = labelled.shortened(self.names, 3)
        raise MismatchError(
            f"{self._predicted.source} and {self._truth.source} have no class in common (they name "
            f"{own}, and {true}); name them alike, or, to measure masks without classes, did you mean "
            "--metric recall?"
        )

    def _index(self, classes: Sequence[tuple[str, ...]], with_background: bool) -> None:
        seen: set[str] = set()
        for words in classes:
            if _plain(words[0]) in seen:
                raise InputError(
                    f"{self._truth.source}: the class '{words[0]}' is there twice; rename one of them"
                )
            seen.add(_plain(words[0]))
        known = list(classes)
        if with_background and BACKGROUND not in seen:
            known.append((BACKGROUND,))
        self._known = KnownNames(known)
        self.names = self._known.names

    def _match_all(self, classes: Sequence[Sequence[str]]) -> list[int]:
        """The true class of each predicted class, -1 if none. What is only written in a similar way comes
        last, and gets no true class that is matched already."""
        matches = [self._match(words) for words in classes]
        taken = frozenset(matches)
        for place, words in enumerate(classes):
            if matches[place] == UNLABELLED:
                matches[place] = next(iter(self._known.similar(words, taken)), UNLABELLED)
        return matches

    def _match(self, words: Sequence[str]) -> int:
        """The true class of a predicted class by its name or its synonyms; -1 if none."""
        own_name = self._known.of_spelling(words[0])
        if own_name is not None:
            return own_name
        matches = set[int]()
        for word in words:
            named = self._known.of_spelling(word)
            matches |= self._known.of_synonym(word) if named is None else {named}
        if len(matches) > 1:
            several = ", ".join(self.names[k] for k in sorted(matches))
            raise MismatchError(
                f"{self._predicted.source}: the class '{words[0]}' could be any of {several} in "
                f"{self._truth.source}; rename it to one of them"
            )
        return matches.pop() if matches else UNLABELLED

    def _is_respelled(self, name: str, k: int) -> bool:
        """Whether a predicted name is a true one in another spelling, and not by a declared synonym."""
        return name != self.names[k] and KnownNames([(self.names[k],)]).of_word(name) == {0}

    def named(self, words: Sequence[str], flag: str) -> set[int]:
        """The true classes of these names. Raises UsageError, which names the flag, for one that is none."""
        classes = set[int]()
        for word in words:
            if not (own := self._known.of_word(word)):
                raise UsageError(
                    f"{flag}: {self._truth.source} has no class '{word}'; it has "
                    + labelled.shortened(self.names)
                )
            classes |= own
        return classes

    def _ignore(self, label: str) -> None:
        """Leaves a class of the truth, or a value of its label maps, out of the count."""
        classes = self._known.of_word(label)
        is_value = label.isdecimal() and self._truth.has_values
        if classes:
            for k in classes:
                self._true[self._true == k] = UNLABELLED
        elif is_value and int(label) < len(self._truth.classes):
            self._true[int(label)] = UNLABELLED
        elif is_value:
            self._ignored_values.add(int(label))
            if int(label) in labelled.UNLABELLED_VALUES:
                self._true[-1] = UNLABELLED
        else:
            raise UsageError(
                f"--ignore-label: {self._truth.source} has no class '{label}'; it has "
                + labelled.shortened(self.names)
            )

    def truth(
        self, labels: NDArray[np.int32], name: str, words: Sequence[str] | None = None
    ) -> NDArray[np.int64]:
        """True labels (H, W) in 0..K-1, -1 where they are not counted.

        `words` are those that the image's prediction could choose from; None means all.
        """
        beyond = len(self._truth.classes)
        if labels.max() >= beyond:
            unknown = set(np.unique(labels[labels >= beyond]).tolist()) - self._ignored_values
            _refuse_values(self._truth, name, unknown)
            labels = np.minimum(labels, beyond)
        table = self._true
        if words is not None:
            possible = set[int]().union(*(self._known.of_word(word) for word in words))
            possible |= {UNLABELLED, self._background}
            table = np.where(np.isin(table, list(possible)), table, UNLABELLED)
        return table[labels]

    def prediction(
        self, labels: NDArray[np.int32], name: str, *, with_unmatched: bool = False
    ) -> NDArray[np.int64]:
        """Predicted labels (H, W) in 0..K-1, -1 where they are none of the true classes; with the others those
        have the places that they have in `every_name`."""
        if labels.max() >= len(self._predicted.classes):
            unknown = np.unique(labels[labels >= len(self._predicted.classes)]).tolist()
            _refuse_values(self._predicted, name, set(unknown))
        return (self._every if with_unmatched else self._matches)[labels]


def _plain(name: str) -> str:
    """A class name without regard to case and extra spaces."""
    return " ".join(name.casefold().split())


def _refuse_values(images: LabelledImages, name: str, unknown: set[int]) -> None:
    if unknown:
        raise InputError(
            f"{images.source}: {name} holds the label {min(unknown)}, but there are only "
            f"{len(images.classes)} classes; complete classes.txt, or for the truth give --ignore-label"
        )
