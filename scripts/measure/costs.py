#!/usr/bin/env python3
"""Measures what an image costs in each stage that goes from image to image: seconds of one core, and bytes written.

    scripts/measure/costs.py IMAGES CAPTIONS [--model photo] [--images 8] [--only NAME,NAME]

IMAGES is a folder of photographs, CAPTIONS a COCO captions JSON of them. Each stage runs twice, on a few images and
on a few more; what the second run takes longer, an image, is what counts, so that loading a model does not. It is CPU
time of one thread, which other programs on the machine hardly change. `--model vit-b-16` is ViT-B/16 with random
weights: they cost what trained ones do. Prints one JSON document.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1"}

FEW = 2  # images of the first run
WORDS = "person,dog,car,bicycle,table,food,boat,horse,bird,building"


def vit_b_16(folder: Path) -> str:
    """A folder with ViT-B/16 at random weights, as open_clip keeps it."""
    import open_clip
    from safetensors.torch import save_file

    model = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.481, 0.458, 0.408], "std": [0.269, 0.261, 0.276]}
    config = {
        "model_cfg": open_clip.get_model_config("ViT-B-16-quickgelu"),
        "preprocess_cfg": preprocess,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return str(folder)


def stages(
    folder: Path, images: Path, captions: Path, model: str
) -> dict[str, Callable[[int, str], object]]:
    """The stages, each a function of the number of images and the name of the output."""
    import ovtool

    compute = ovtool.Compute(model=model, device="cpu", threads=1)
    names = [path.name for path in sorted(images.iterdir())]
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{name} person dog car\n" for name in names))

    def source(count: int) -> list[str]:
        return [str(images / name) for name in names[:count]]

    def segment(method: Any) -> Callable[[int, str], object]:
        return lambda count, out: ovtool.segment(
            source(count), WORDS, method, out=out, compute=compute
        )

    def refine(step: str) -> Callable[[int, str], object]:
        def run(count: int, out: str) -> object:
            maps = folder / f"maps-{count}.safetensors"
            if not maps.exists():
                ovtool.cam(
                    labels,
                    ovtool.Gradcam(),
                    images=images,
                    limit=count,
                    out=str(maps),
                    compute=compute,
                )
            begun = time.process_time()
            ovtool.refine(
                maps, ovtool.Apply(apply=(step,)), images=images, out=out, compute=compute
            )
            return time.process_time() - begun

        return run

    return {
        "propose --proposer regions": lambda count, out: ovtool.propose(
            source(count), ovtool.Propose(proposer="regions"), out=out, compute=compute
        ),
        "propose --proposer merging": lambda count, out: ovtool.propose(
            source(count), ovtool.Propose(proposer="merging"), out=out, compute=compute
        ),
        "segment --method patch": segment(ovtool.Patch()),
        "segment (fused)": segment(ovtool.Fused()),
        "segment --method two-stage": segment(ovtool.TwoStage(proposer="regions")),
        "segment --method two-stage --proposer merging": segment(ovtool.TwoStage(proposer="merging")),
        "mine-pairs --proposer regions": lambda count, out: ovtool.mine_pairs(
            captions, images, matching=ovtool.Matching(proposer="regions"), limit=count, out=out, compute=compute
        ),
        "mine-pairs --proposer merging --region-features tokens": lambda count, out: ovtool.mine_pairs(
            captions, images, matching=ovtool.Matching(proposer="merging", region_features="tokens"), limit=count,
            out=out, compute=compute,
        ),
        "cam --method gradcam": lambda count, out: ovtool.cam(
            labels, ovtool.Gradcam(), images=images, limit=count, out=out, compute=compute
        ),
        "refine --apply pamr": refine("pamr"),
        "refine --apply crf": refine("crf"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="IMAGES")
    parser.add_argument("captions", type=Path, metavar="CAPTIONS")
    parser.add_argument("--model", default="photo")
    parser.add_argument(
        "--images", type=int, default=8, help="how many more images the second run has (8)"
    )
    parser.add_argument("--only", help="names of stages, with commas")
    given = parser.parse_args()
    sizes = [path.stat().st_size for path in given.folder.iterdir()]
    costs: dict[str, Any] = {
        "model": given.model,
        "bytes read": sum(sizes) / len(sizes),
        "images": given.images,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = vit_b_16(folder) if given.model == "vit-b-16" else given.model
        for name, run in stages(folder, given.folder, given.captions, model).items():
            if given.only and name not in given.only.split(","):
                continue
            suffix = "safetensors" if name.startswith("cam") else "json"
            spent, written = [], []
            for count in (FEW, FEW + given.images):
                out = folder / f"{len(costs)}-{count}.{suffix}"
                begun = time.process_time()
                answer = run(count, str(out))
                spent.append(answer if isinstance(answer, float) else time.process_time() - begun)
                written.append(out.stat().st_size)
            costs[name] = {
                "seconds": (spent[1] - spent[0]) / given.images,
                "bytes written": (written[1] - written[0]) / given.images,
            }
            print(json.dumps({name: costs[name]}), flush=True)
    print(json.dumps(costs, indent=1))


if __name__ == "__main__":
    main()
