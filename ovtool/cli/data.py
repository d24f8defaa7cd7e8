"""`ovtool data`: the data sets that are known by name, and making the one that needs no download."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    DryRunOpt,
    ImageCountOpt,
    JsonOpt,
    OverwriteOpt,
    PresetOpt,
    SeedOpt,
    SizeOpt,
    SplitOpt,
    WorkersOpt,
)


def list_(json: JsonOpt = False) -> None:
    """List the data sets that are known by name: what each is, its splits, whether it is at hand.

    A data set stands for its images wherever a command takes images: `NAME` or `NAME:SPLIT`.

    $ ovtool data list
    """
    from ovtool.stages import data as stage

    sets = stage.listing()
    if json:
        output.print_json({"data_sets": sets})
    else:
        output.print_facts(_facts(sets))


def _facts(sets: list[dict[str, Any]]) -> dict[str, Any]:
    """The splits below their data set."""
    facts: dict[str, Any] = {}
    for one in sets:
        about = facts.setdefault(one["data_set"], {"what": one["what"], "splits": {}})
        about["splits"][one["split"] + (" (default)" if one["default"] else "")] = one["state"]
    return facts


def make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set to make: collage.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where: an absent or empty folder.")
    ],
    split: SplitOpt = None,
    images: ImageCountOpt = 200,
    seed: SeedOpt = 7,
    size: SizeOpt = 256,
    preset: PresetOpt = None,
    workers: WorkersOpt = 2,
    overwrite: OverwriteOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Make a data set: pictures with instances, semantic masks, captions, label maps, word lists.

    `collage` is emoji art on textured grounds. The same arguments give the same bytes, whatever the
    number of workers. --split train is drawn with art that scripts/bundle/fetch_art fetches, the other
    splits with Twemoji (pip install 'ovtool[demo]'). --overwrite replaces the files of the split and
    leaves all others.

    DIR gets images/SPLIT/, label_maps/SPLIT/ with classes.txt, and in annotations/
    instances_SPLIT.json, semantic_SPLIT.json, captions_SPLIT.json and classes_SPLIT.json: for each
    image 20 words to segment it with.

    $ ovtool data make collage scenes --split test --images 200 --seed 7 --size 256
    """
    from ovtool.stages import data as stage

    result = stage.make(
        name,
        folder,
        split=split,
        images=images,
        seed=seed,
        size=size,
        preset=preset,
        workers=workers,
        overwrite=overwrite,
        dry_run=dry_run,
        progress=output.progress,
    )
    settings = result["settings"]
    output.message(
        f"{result['data_set']}: {'would make' if dry_run else 'made'} {settings['images']} images "
        f"of {settings['size']} x {settings['size']} in {result['folder']}"
    )
    if json:
        output.print_json(result)
