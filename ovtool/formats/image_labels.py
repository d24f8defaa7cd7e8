"""Image-level labels: which categories each image shows, and nothing of where."""

from collections.abc import Mapping
from dataclasses import dataclass

from ovtool.formats import coco, parts
from ovtool.formats.images import ImageItem


@dataclass(frozen=True)
class LabelledImage:
    """An image and the ids of the categories that it shows, ascending, each once."""

    item: ImageItem
    category_ids: tuple[int, ...]


@dataclass(frozen=True)
class Labelled:
    """Images with one label or more, in the order of their source."""

    source: str
    images: tuple[LabelledImage, ...]
    categories: tuple[coco.Category, ...]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of images, categories and labels."""
        return parts.settings_digest(
            {
                "images": [[image.item.name, list(image.category_ids)] for image in self.images],
                "categories": [coco.category_entry(category) for category in self.categories],
            }
        )

    @property
    def items(self) -> list[ImageItem]:
        """The images alone."""
        return [image.item for image in self.images]


def of_image(labels: Labelled) -> Mapping[str, tuple[int, ...]]:
    """File name to category ids."""
    return {image.item.name: image.category_ids for image in labels.images}
