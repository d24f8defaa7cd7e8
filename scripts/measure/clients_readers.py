"""What other tools read of our files: run by `clients.py` with the Python of each tool, without ovtool.

    clients_readers.py TOOL FOLDER OUT.npz

Each reader gives its masks as (image name without ending, class name, bool (H, W)). They are written packed, with their
names as JSON.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Read = Iterator[tuple[str, str, Any]]


def pycocotools_coco(folder: Path) -> Read:
    from pycocotools.coco import COCO

    yield from _of_coco(COCO(folder / "coco.json"))


def pycocotools_results(folder: Path) -> Read:
    from pycocotools.coco import COCO

    yield from _of_coco(COCO(folder / "coco.json").loadRes(str(folder / "results.json")))


def _of_coco(data: Any) -> Read:
    for entry in data.anns.values():
        name = Path(data.imgs[entry["image_id"]]["file_name"]).stem
        yield name, data.cats[entry["category_id"]]["name"], data.annToMask(entry)


def supervision_coco(folder: Path) -> Read:
    import supervision as sv

    images, labels = str(folder / "images"), str(folder / "coco.json")
    yield from _of_supervision(sv.DetectionDataset.from_coco(images, labels, force_masks=True))


def supervision_yolo(folder: Path) -> Read:
    import supervision as sv

    yolo = folder / "yolo"
    places = (str(yolo / "images"), str(yolo / "labels"), str(yolo / "data.yaml"))
    yield from _of_supervision(sv.DetectionDataset.from_yolo(*places, force_masks=True))


def _of_supervision(data: Any) -> Read:
    for path, _, detections in data:
        for mask, number in zip(detections.mask, detections.class_id, strict=True):
            yield Path(path).stem, data.classes[number], np.asarray(mask)


def datumaro_coco(folder: Path) -> Read:
    yield from _of_datumaro(folder / "datumaro_coco", "coco_instances")


def datumaro_panoptic(folder: Path) -> Read:
    yield from _of_datumaro(folder / "datumaro_panoptic", "coco_panoptic")


def datumaro_cvat(folder: Path) -> Read:
    yield from _of_datumaro(folder / "datumaro_cvat", "cvat")


def datumaro_yolo(folder: Path) -> Read:
    yield from _of_datumaro(folder / "yolo", "yolo_ultralytics_segmentation")


def _of_datumaro(folder: Path, kind: str) -> Read:
    import datumaro

    data = datumaro.Dataset.import_from(str(folder), kind)
    names = [entry.name for entry in data.categories()[datumaro.AnnotationType.label]]
    for item in data:
        for own in item.annotations:
            if own.type == datumaro.AnnotationType.mask:
                yield Path(item.id).stem, names[own.label], np.asarray(own.image)


def panopticapi_panoptic(folder: Path) -> Read:
    """Its own measure of our file by itself, which refuses ids and areas that do not agree."""
    from panopticapi.evaluation import pq_compute
    from panopticapi.utils import rgb2id
    from PIL import Image

    file = folder / "panoptic.json"
    quality = pq_compute(str(file), str(file))
    if quality["All"]["pq"] != 1:
        raise SystemExit(f"the quality of our file by itself is {quality['All']['pq']}")
    content = json.loads(file.read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    for entry in content["annotations"]:
        ids = rgb2id(np.array(Image.open(folder / "panoptic" / entry["file_name"])))
        for segment in entry["segments_info"]:
            yield Path(entry["file_name"]).stem, names[segment["category_id"]], ids == segment["id"]


def ultralytics_yolo(folder: Path) -> Read:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygon2mask

    data = check_det_dataset(str(folder / "yolo" / "data.yaml"), autodownload=False)
    images = YOLODataset(img_path=data["train"], data=data, task="segment")
    for entry in images.get_labels():
        height, width = entry["shape"]
        for number, points in zip(entry["cls"][:, 0], entry["segments"], strict=True):
            mask = polygon2mask((height, width), [(points * (width, height)).reshape(-1)])
            yield Path(entry["im_file"]).stem, data["names"][int(number)], mask


def fiftyone_coco(folder: Path) -> Read:
    """By the functions that its importer of COCO files calls, for a data set of its own needs MongoDB."""
    from fiftyone.utils import coco

    loaded = coco.load_coco_detection_annotations(str(folder / "coco.json"))
    _, classes, _, images, annotations = loaded
    for number, entry in images.items():
        size = (entry["width"], entry["height"])
        for own in annotations.get(number, ()):
            detections = own.to_detection(size, classes_map=classes, load_segmentation=True)
            whole = np.zeros(size[::-1], bool)
            left, top = (
                round(detections.bounding_box[0] * size[0]),
                round(detections.bounding_box[1] * size[1]),
            )
            height, width = detections.mask.shape
            whole[top : top + height, left : left + width] = detections.mask
            yield Path(entry["file_name"]).stem, detections.label, whole


READERS = {
    name: own
    for name, own in list(globals().items())
    if callable(own) and "_" in name[1:] and name[0] != "_"
}


def main() -> None:
    """Reads the files of a tool, and writes what it saw."""
    tool, folder, out = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    seen = [
        (name, word, np.asarray(mask).astype(bool)) for name, word, mask in READERS[tool](folder)
    ]
    packed = {f"mask{k}": np.packbits(mask) for k, (_, _, mask) in enumerate(seen)}
    names = json.dumps([[name, word, *mask.shape] for name, word, mask in seen])
    np.savez_compressed(out, names=np.array(names), **packed)


if __name__ == "__main__":
    if "--help" in sys.argv:
        print(f"usage: {__doc__}")
        raise SystemExit
    main()
