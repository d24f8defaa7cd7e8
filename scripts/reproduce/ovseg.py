#!/usr/bin/env python3
"""Measures the claims of OVSeg on the collage: proposals, mined pairs, mask prompts, two stages.

    scripts/reproduce/ovseg.py WORK [--seeds 0,1,2] [--only NAME] [--steps 80] [--images 500]
    scripts/reproduce/ovseg.py WORK --photos PHOTOS

Everything that is made on the way stays in the folder WORK, every figure in WORK/cells.json, and what
is there is not made again: a run that was cut off goes on. Training is on `collage:train` (other
drawings), lambda is chosen on `collage:val`, all figures are of `collage:test`, in per cent, each
image with its own 20 words and its best 40 proposals. mIoU is given over the classes of the truth, and
over those of truth or prediction. Prints Markdown tables: mean over the repetitions of a training (`--seeds`),
which share scenes and test images, and each of them; and differences with the intervals of the paired
bootstrap over images.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ovseg_photographs
import ovseg_sweep
import photographs
from cells import Cells, Figures, mean_and_seeds, with_interval

from ovtool.datasets import collage_files, registry
from ovtool.datasets.nouns import GROUNDS, class_names, table
from ovtool.formats import coco, image_search, labelled
from ovtool.formats.images import ImageItem
from ovtool.inputs import words as word_inputs
from ovtool.proposers import by_name
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.proposers.proposals import Proposals
from ovtool.segmenters import two_stage
from ovtool.settings.pairs import Matching, Nouns
from ovtool.settings.probe import Oracle
from ovtool.settings.prompts import MaskPrompts
from ovtool.settings.propose import Propose
from ovtool.settings.segment import TwoStage
from ovtool.settings.shared import Compute, Run, Source
from ovtool.settings.words import Words
from ovtool.stages import evaluate, mine_pairs, probe_oracle, propose, segment, tune_prompts

sys.path.append(str(Path(__file__).parents[1] / "measure"))
import pairs as measure_pairs  # noqa: E402

if TYPE_CHECKING:
    from ovtool.models.clip import Clip

BASE = {noun.name for noun in table() if noun.base} | set(GROUNDS)
# how nouns choose their masks; the paper's is the greatest cosine (--paper-pairs)
MATCHING = Matching(
    templates="vild", matching="softmax", quality_weight=1.0, region_features="crops"
)
MAX_PROPOSALS = 40
DEPTH = 3
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 1.0)
GO_ON = Run(resume=True, overwrite=True)
AGAIN = Run(resume=True, overwrite=True)
TINY = Compute(model="tiny")


@dataclass(frozen=True)
class Tuning:
    """What is tuned on which pairs: `captions` (mined, by proposals), `captions-truth` (mined, by true
    masks) or `labels` (true masks and names of the base set)."""

    train: str = "prompts"
    pairs: str = "captions"
    depth: int | None = DEPTH

    @property
    def name(self) -> str:
        return f"{self.pairs}-{self.train}-{self.depth or 'all'}"


@dataclass
class Bench(Cells):
    """The folder that everything lies in, and the figures that are known."""

    images: int
    steps: int
    batch_size: int
    tower_lr: float
    proposer: str
    chosen_on: int
    tested: int
    matching: Matching
    source: ProposalSource | None = None

    def data(self, split: str) -> registry.DataSet:
        """A split of the collage, made where it is not there."""
        if split != "train":
            return registry.locate(f"collage:{split}")
        folder = self.work / split
        files = registry.collage_in(folder, split)
        if not registry.is_made(files):
            collage_files.make(collage_files.CollageSpec(split, self.images, 7), folder)
        return files

    def proposals(self, split: str) -> Path:
        """The proposals of a split."""
        masks = self.work / f"{split}.proposals.json"
        if not masks.exists():
            propose.run(
                self.data(split).images,
                Propose(proposer=self.proposer, max_proposals=MAX_PROPOSALS),
                out=masks,
                run=AGAIN,
                compute=TINY,
            )
        return masks

    def pairs(self, kind: str) -> Path:
        """The pairs of a kind, the same for every seed of a tuning."""
        out = self.work / f"{kind}.pairs.json"
        data = self.data("train")
        if out.exists():
            return out
        if kind == "labels":
            whole = coco.read(data.semantic)
            kept = {each.id for each in whole.categories if each.name in BASE}
            masks = tuple(one for one in whole.annotations if one.category_id in kept)
            named = tuple(each for each in whole.categories if each.id in kept)
            coco.write(coco.Dataset(whole.info, whole.images, masks, named), str(out))
            return out
        masks = self.proposals("train") if kind == "captions" else data.semantic
        mine_pairs.run(
            data.captions,
            data.images,
            Nouns(captions_per_image="all"),
            replace(self.matching, proposals=masks),
            out=out,
            run=AGAIN,
            compute=TINY,
        )
        return out

    def mined(self) -> Figures:
        """What `measure_pairs.py` says of the mined pairs."""
        data = self.data("train")
        truths = [coco.read(data.instances), coco.read(data.semantic)]
        results = measure_pairs.measure(coco.read(self.pairs("captions")), truths)
        return {key: results[key] for key in ("pairs", "unique_nouns", "strays", "share_right")}

    def tuned(self, tuning: Tuning, seed: int) -> Path:
        """The file that a tuning leaves."""
        out = self.work / f"{tuning.name}.{seed}.safetensors"
        if not out.exists():
            tune_prompts.run(
                self.pairs(tuning.pairs),
                MaskPrompts(
                    train=tuning.train,
                    depth=tuning.depth or "all",
                    steps=self.steps,
                    batch_size=self.batch_size,
                    tower_lr=self.tower_lr,
                    seed=seed,
                ),
                images=self.data("train").images,
                out=out,
                compute=Compute(model="tiny", precision="bfloat16"),
                run=Run(resume=True, overwrite=True),
            )
        return out

    def regions(self, clip: "Clip", most: int = MAX_PROPOSALS) -> ProposalSource:
        """The proposer, which looks at each image once however many systems ask for it."""
        if self.source is None:
            proposer = by_name.load(Propose(proposer=self.proposer, max_proposals=most), clip=clip)
            known: dict[str, Proposals] = {}

            def find(item: ImageItem, rgb: Any) -> Proposals:
                if str(item.path) not in known:
                    known[str(item.path)] = proposer(rgb)
                return known[str(item.path)]

            self.source = ProposalSource(find, proposer.name, no_object=proposer.no_object)
        return self.source

    def lambdas(
        self,
        prompts: Path | None,
        split: str,
        limit: int | None = None,
        features: str = "crops",
        keep: Path | None = None,
    ) -> Figures:
        """mIoU of `segment --method two-stage` at every lambda, of all classes (of truth or prediction, and
        of the truth alone) and of the nouns outside the base set, from one pass over a split; features:
        `--region-features`; keep: where the counts of each image are kept, at every lambda.

        These are the figures that `ovtool segment` and `ovtool evaluate` give for each of them.
        """
        data = self.data(split)
        items = image_search.find_images([str(data.images)])[:limit]
        looked_for = word_inputs.gather(
            items, data.images, Words(classes_per_image=data.classes_per_image)
        )
        method = TwoStage(
            prompts=prompts or "none",
            region_features=features,  # type: ignore[arg-type]
            max_proposals=MAX_PROPOSALS,
        )
        compute = Compute(model="tiny", device="cpu", precision="float32")
        ready = two_stage.load(method, looked_for, self.regions, compute)
        truth = labelled.from_dataset(coco.read(data.semantic, root=data.images), split)
        weights = LAMBDAS if self.regions(ready.clip).no_object is not None else (0.0, 1.0)
        counts = ovseg_sweep.sweep(ready, items, truth, weights)
        if keep is not None:
            np.savez_compressed(keep, **counts)
        return ovseg_sweep.figures(
            counts, np.array([name not in BASE for name, *_ in truth.classes])
        )

    def oracle(self, prompts: Path | None) -> Figures:
        """The rows of `probe oracle`."""
        data = self.data("test")
        results = probe_oracle.run(
            oracle=Oracle(
                classes_per_image=data.classes_per_image,
                prompts="none" if prompts is None else prompts,
                proposals=self.proposals("test"),
            ),
            source=Source(coco=data.semantic, images=data.images, limit=self.tested),
            compute=TINY,
        )
        short = {
            probe_oracle.MASKED: "masked",
            probe_oracle.PROMPTED: "prompted",
            probe_oracle.UNMASKED: "unmasked",
            probe_oracle.PROPOSED: "proposed",
        }
        figures = {}
        for row in results["rows"]:
            figures[f"{short[row['name']]}_miou"] = row["miou_union"]
            if row["accuracy"] is not None:
                figures[f"{short[row['name']]}_accuracy"] = row["accuracy"]
        return figures

    def counts_of(self, kind: str) -> Path:
        """Where the counts of each image of `test` are kept, by features and tuning."""
        return self.work / f"counts-{kind.replace('/', '-')}.npz"

    def system(self, name: str, prompts: Path | None, features: str) -> tuple[float, Figures]:
        """The lambda that val chooses, and the figures of test at every lambda."""
        kind = f"{features}/{name}"
        sweep = self.cell(
            f"val/{kind}", lambda: self.lambdas(prompts, "val", self.chosen_on, features)
        )
        tested = self.cell(
            f"test/{kind}",
            lambda: self.lambdas(prompts, "test", self.tested, features, self.counts_of(kind)),
        )
        weights = [each for each in LAMBDAS if f"{each}" in sweep]
        return max(weights, key=lambda each: sweep[f"{each}"]), tested

    def all_words(self, prompts: Path, weight: float) -> Figures:
        """mIoU of two-stage with every word of the table for every image, crops and tokens."""
        data, out = self.data("test"), self.work / "all-word_inputs.json"
        segment.run(
            data.images,
            Words(classes=",".join(class_names()), background="none"),
            TwoStage(
                prompts=prompts, proposer=self.proposer, region_features="both", ensemble=weight
            ),
            out=out,
            run=GO_ON,
            compute=Compute(model="tiny"),
        )
        return {"miou": evaluate.run(out, data.semantic)["miou_union"]}


# title of the row; what is tuned, None for the CLIP as it is; --region-features
SYSTEMS: Sequence[tuple[str, Tuning | None, str]] = (
    ("the CLIP as it is", None, "crops"),
    ("prompts (depth 3)", Tuning(), "crops"),
    ("tower", Tuning("tower"), "crops"),
    ("tower, then prompts", Tuning("tower-then-prompts"), "crops"),
    ("tower, then prompts; crops and tokens", Tuning("tower-then-prompts"), "both"),
    ("the CLIP as it is; crops and tokens", None, "both"),
    ("the CLIP as it is; tokens", None, "tokens"),
    ("tower; pairs: true masks and names of the base set", Tuning("tower", "labels"), "crops"),
    ("tower; pairs: captions and true masks", Tuning("tower", "captions-truth"), "crops"),
    ("prompts, depth 1", Tuning(depth=1), "crops"),
    ("prompts, all 6 blocks", Tuning(depth=None), "crops"),
)


def measure(bench: Bench, tuning: Tuning | None, features: str, seed: int) -> Figures:
    """The figures of a row of `SYSTEMS` at a seed."""
    name = "none" if tuning is None else f"{tuning.name}.{seed}"
    prompts = None if tuning is None else bench.tuned(tuning, seed)
    named = bench.cell(f"oracle/{name}", lambda: bench.oracle(prompts))
    weight, tested = bench.system(name, prompts, features)
    return {
        "two-stage": tested[f"{weight} of the truth"],
        "classes of truth or prediction": tested[f"{weight}"],
        "of nouns outside the base": tested[f"{weight} new"],
        "proposals alone": tested["0.0"],
        "CLIP alone": tested["1.0"],
        "lambda": weight / 100,
        "masks named right": named.get("prompted_accuracy", named["masked_accuracy"]),
    }


def systems(bench: Bench, seeds: Sequence[int], only: str | None) -> list[str]:
    """One row a system: two-stage at the lambda that val chose, the proposals' words alone, the CLIP
    alone. The first seed of every row is measured before the second of any."""
    results: dict[str, list[Figures]] = {}
    for seed in seeds:
        for title, tuning, features in SYSTEMS:
            is_once = tuning is None or tuning.depth != DEPTH  # depths are compared at one seed
            if (only is None or only in title) and not (is_once and title in results):
                measured = measure(bench, tuning, features, seed)
                results.setdefault(title, []).append(measured)
    heads = next(iter(results.values()))[0]
    rows = [f"| tuned | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for title, several in results.items():
        cells = [mean_and_seeds([one[head] for one in several]) for head in heads]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def differences(bench: Bench, seed: int) -> list[str]:
    """How much higher each system is than the CLIP as it is, of one training each."""
    rows = ["| against the CLIP as it is, crops | mIoU | truth or prediction |", "|---|---|---|"]
    plain = bench.counts_of("crops/none"), bench.system("none", None, "crops")[0]
    for title, tuning, features in SYSTEMS[1:]:
        name = "none" if tuning is None else f"{tuning.name}.{seed}"
        prompts = None if tuning is None else bench.tuned(tuning, seed)
        weight, _ = bench.system(name, prompts, features)
        results = ovseg_sweep.paired(plain, (bench.counts_of(f"{features}/{name}"), weight))
        cells = [with_interval(one.value, one.low, one.high) for one in results.values()]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", help="systems whose title contains this text")
    parser.add_argument("--images", type=int, default=500, help="of collage:train")
    parser.add_argument("--chosen-on", type=int, default=25, help="images of val for lambda")
    parser.add_argument("--tested", type=int, default=200, help="images of test")
    parser.add_argument("--steps", type=int, default=80, help="of every tuning")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--tower-lr", type=float, default=1e-4)
    parser.add_argument("--proposer", help="default: the one of tiny")
    parser.add_argument("--paper-pairs", action="store_true", help="mine by the greatest cosine")
    photographs.add_options(parser)
    args = parser.parse_args()
    if photographs.print_table(args, ovseg_photographs.claims):
        return
    bench = Bench(
        args.work,
        args.images,
        args.steps,
        args.batch_size,
        args.tower_lr,
        args.proposer or by_name.default_name("tiny"),
        args.chosen_on,
        args.tested,
        Matching(recipe="ovseg") if args.paper_pairs else MATCHING,
    )
    seeds = [int(seed) for seed in args.seeds.split(",")]
    names = bench.cell("oracle/none", lambda: bench.oracle(None))
    print("| who names what | mIoU | masks named right |\n|---|---|---|")
    for name in ("masked", "unmasked", "proposed"):
        right = names.get(f"{name}_accuracy")
        print(
            f"| {name} | {mean_and_seeds([names[f'{name}_miou']])} | {mean_and_seeds([right]) if right else ''} |"
        )
    mined = bench.cell("pairs", bench.mined)
    print(
        f"\n{mined['pairs']:.0f} pairs mined from {args.images} images, {mined['unique_nouns']:.0f} nouns: "
        f"{mean_and_seeds([mined['share_right']])} % have the right mask\n"
    )
    print("\n".join(systems(bench, seeds, args.only)), flush=True)
    if args.only is None:
        print("\n" + "\n".join(differences(bench, seeds[0])), flush=True)
        tuning = Tuning("tower-then-prompts")
        best = bench.tuned(tuning, seeds[0])
        weight, _ = bench.system(f"{tuning.name}.{seeds[0]}", best, "both")
        everything = bench.cell("test/all-words", lambda: bench.all_words(best, weight))
        print(
            f"\nAll {len(class_names())} words at once: {mean_and_seeds([everything['miou']])} mIoU"
        )


if __name__ == "__main__":
    main()
