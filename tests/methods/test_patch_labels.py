"""The class of a patch, against counting its pixels."""

import torch

from ovtool.methods import patch_labels
from ovtool.methods.patch_labels import IGNORED, MIXED


def slow(labels, patch, count_mixed):
    grid = torch.empty(labels.shape[0] // patch, labels.shape[1] // patch, dtype=torch.int64)
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            pixels = labels[i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].flatten()
            counts = {int(v): int((pixels == v).sum()) for v in sorted(set(pixels.tolist()) - {-1})}
            half = patch * patch / 2
            if int((pixels == -1).sum()) >= half:
                grid[i, j] = IGNORED
            elif count_mixed or max(counts.values()) > half:
                grid[i, j] = max(counts, key=counts.get)
            else:
                grid[i, j] = MIXED
    return grid


def test_majority_is_that_of_the_pixels():
    random = torch.Generator().manual_seed(0)
    coarse = torch.randint(-1, 3, (10, 14), generator=random)
    labels = coarse.repeat_interleave(4, 0).repeat_interleave(4, 1)  # (40, 56)
    found = patch_labels.majority(labels, 8)
    for count_mixed in (False, True):
        expected = slow(labels, 8, count_mixed)
        assert torch.equal(found.counted(count_mixed), expected)
    assert {IGNORED, MIXED} < set(found.counted().unique().tolist())
    assert (found.share + found.unlabelled <= 1).all()


def test_a_tie_takes_the_first_class_and_is_mixed():
    labels = torch.tensor([[2, 2, 0, 0]] * 4)
    found = patch_labels.majority(labels, 4)
    assert found.label.tolist() == [[0]] and found.share.item() == 0.5
    assert found.counted().tolist() == [[MIXED]]
    assert found.counted(count_mixed=True).tolist() == [[0]]
    assert patch_labels.majority(torch.full((4, 4), -1), 4).counted(True).tolist() == [[IGNORED]]


def test_labels_are_resized_by_the_nearest_pixel():
    labels = torch.arange(12).view(3, 4)
    assert torch.equal(patch_labels.resized(labels, (3, 4)), labels)
    doubled = patch_labels.resized(labels, (6, 8))
    assert torch.equal(doubled, labels.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert patch_labels.resized(doubled, (3, 4)).tolist() == labels.tolist()
