"""What other tools write, for `clients.py` to read back: run with the Python of each tool, without ovtool.

    clients_writers.py TOOL_FORMAT FOLDER OUT

Each writer takes the masks of `coco.json` and the images of FOLDER, and leaves an export in OUT by its own functions
alone. It prints what `ovtool convert` is given of it, and the folder of the images.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

Made = tuple[Path, Path]  # what is read, and the folder of the images


def supervision_coco(folder: Path, out: Path) -> Made:
    path = out / "polygons.json"
    _supervised(folder).as_coco(annotations_path=str(path))
    return path, folder / "images"


def supervision_yolo(folder: Path, out: Path) -> Made:
    places = [str(out / name) for name in ("images", "labels", "data.yaml")]
    _supervised(folder).as_yolo(*places)
    return out, out / "images"


def _supervised(folder: Path) -> Any:
    import supervision as sv

    images, labels = str(folder / "images"), str(folder / "coco.json")
    return sv.DetectionDataset.from_coco(images, labels, force_masks=True)


def datumaro_coco(folder: Path, out: Path) -> Made:
    _datumaro(folder).export(str(out), "coco_instances", save_media=True)
    return out / "annotations" / "instances_demo.json", out / "images" / "demo"


def datumaro_panoptic(folder: Path, out: Path) -> Made:
    import datumaro

    data = datumaro.Dataset.import_from(str(folder / "datumaro_panoptic"), "coco_panoptic")
    data.export(str(out), "coco_panoptic", save_media=True)
    return out / "annotations" / "panoptic_demo.json", out / "images" / "demo"


def datumaro_cvat(folder: Path, out: Path) -> Made:
    _datumaro(folder).export(str(out), "cvat", save_media=True)
    return next(out.glob("*.xml")), out / "images"


def _datumaro(folder: Path) -> Any:
    import datumaro

    data = datumaro.Dataset.import_from(str(folder / "datumaro_coco"), "coco_instances")
    return data.filter('/item/annotation[type="mask"]', filter_annotations=True)


def ultralytics_yolo(folder: Path, out: Path) -> Made:
    """Its converter of COCO files, which takes polygons alone; `data.yaml` is written by hand, as its guide has it."""
    from ultralytics.data.converter import convert_coco
    from ultralytics.utils import YAML

    source = out.parent / f"{out.name}.coco"
    source.mkdir(exist_ok=True)
    content = _in_polygons(folder)
    (source / "instances_demo.json").write_text(json.dumps(content))
    home = out / "converted"  # which it makes: a folder that exists would be numbered
    convert_coco(str(source), save_dir=str(home), use_segments=True, cls91to80=False)
    shutil.copytree(folder / "images", home / "images" / "demo", dirs_exist_ok=True)
    names = {entry["id"] - 1: entry["name"] for entry in content["categories"]}
    YAML.save(home / "data.yaml", {"path": ".", "train": "images/demo", "names": names})
    return home, home / "images"


def ultralytics_txt(folder: Path, out: Path) -> Made:
    """What `yolo segment predict save_txt save_conf` writes: the results of a network, with their confidence."""
    import numpy as np
    from PIL import Image
    from pycocotools.coco import COCO
    from ultralytics.engine.results import Results
    from ultralytics.utils import YAML

    data = COCO(folder / "coco.json")
    names = {entry["id"] - 1: entry["name"] for entry in data.cats.values()}
    for number, entry in data.imgs.items():
        own = data.loadAnns(data.getAnnIds(imgIds=number))
        pixels = np.array(Image.open(folder / "images" / entry["file_name"]).convert("RGB"))
        masks = np.stack([data.annToMask(mark) for mark in own])
        boxes = [
            [x, y, x + w, y + h, 0.5, mark["category_id"] - 1]
            for mark in own
            for x, y, w, h in [mark["bbox"]]
        ]
        import torch

        made = Results(pixels, entry["file_name"], names, torch.tensor(boxes), torch.tensor(masks))
        made.save_txt(out / "labels" / f"{Path(entry['file_name']).stem}.txt", save_conf=True)
    YAML.save(out / "data.yaml", {"path": ".", "train": "images", "names": names})
    shutil.copytree(folder / "images", out / "images")
    return out, out / "images"


def labelstudio_coco(folder: Path, out: Path) -> Made:
    """Its converter (`label-studio-sdk`) of tasks with polygons, as its server exports them."""
    _label_studio(folder, out, "COCO")
    return out / "result.json", folder


def labelstudio_yolo(folder: Path, out: Path) -> Made:
    """As its server exports them: `classes.txt` and `labels/`, without images."""
    _label_studio(folder, out, "YOLO")
    return out, folder / "images"


def _label_studio(folder: Path, out: Path, kind: str) -> None:
    from label_studio_sdk.converter import Converter

    content, tasks = _in_polygons(folder), []
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    for image in content["images"]:
        size = (image["width"], image["height"])
        results = []
        for mark in (m for m in content["annotations"] if m["image_id"] == image["id"]):
            for polygon in mark["segmentation"]:
                points = [
                    [100 * x / size[0], 100 * y / size[1]]
                    for x, y in zip(polygon[::2], polygon[1::2], strict=True)
                ]
                word = names[mark["category_id"]]
                results.append(
                    {"id": str(len(results)), "type": "polygonlabels", "from_name": "label",
                     "to_name": "image", "original_width": size[0], "original_height": size[1],
                     "value": {"points": points, "polygonlabels": [word], "closed": True}}
                )  # fmt: skip
        url = f"images/{image['file_name']}"
        tasks.append(
            {"id": image["id"], "data": {"image": url},
             "annotations": [{"id": image["id"], "result": results, "completed_by": {"id": 1}}]}
        )  # fmt: skip
    labels = "".join(f'<Label value="{name}"/>' for name in names.values())
    config = f'<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image">{labels}</PolygonLabels></View>'
    source = out.parent / f"{out.name}.tasks.json"
    source.write_text(json.dumps(tasks))
    converter = Converter(config, project_dir=str(out.parent), download_resources=kind == "COCO")
    converter.convert(str(source), str(out), kind, is_dir=False)


def _in_polygons(folder: Path) -> dict[str, Any]:
    """`coco.json` with the outlines of its masks, by OpenCV."""
    import cv2
    import numpy as np
    from pycocotools.coco import COCO

    data = COCO(folder / "coco.json")
    content: dict[str, Any] = json.loads((folder / "coco.json").read_text())
    for mark in content["annotations"]:
        mask = data.annToMask(mark).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        longest = max(outlines, key=cv2.contourArea)
        mark["segmentation"] = [longest.reshape(-1).astype(float).tolist()]
    # of two pixels and fewer there is no polygon
    content["annotations"] = [m for m in content["annotations"] if len(m["segmentation"][0]) >= 6]
    return content


WRITERS = {
    name: own
    for name, own in list(globals().items())
    if callable(own) and "_" in name[1:] and name[0] != "_"
}


def main() -> None:
    """Writes the export of a tool."""
    folder, out = Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    out.mkdir(parents=True)
    source, images = WRITERS[sys.argv[1]](folder, out)
    print(json.dumps([str(source), str(images)]))


if __name__ == "__main__":
    if "--help" in sys.argv:
        print(f"usage: {__doc__}")
        raise SystemExit
    main()
