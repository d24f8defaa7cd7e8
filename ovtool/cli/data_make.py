"""`ovtool data make NAME DIR`: the data set that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ovtool.cli import output
from ovtool.cli.declare import Only
from ovtool.settings.data import Scenes
from ovtool.settings.field import Argument
from ovtool.settings.shared import Json, Run


def data_make(
    name: Annotated[
        str,
        Argument(
            "The data set to make: collage, or a folder that Hugging Face's datasets saved.",
            metavar="NAME",
        ),
    ],
    folder: Annotated[Path, Argument("Where: an absent or empty folder.", metavar="DIR")],
    scenes: Scenes = Scenes(),
    *,
    run: Annotated[Run, Only("overwrite", "update", "dry_run")] = Run(),
    json: Json = False,
) -> None:
    """Make a data set: images with instances, semantic masks, captions, label maps, word lists.

    `collage` is emoji art on textured grounds. The same arguments give the same bytes, whatever the
    number of workers. --split train is drawn with art that scripts/bundle/fetch_art fetches, the other
    splits with Twemoji (pip install 'ovtool[demo]'). --overwrite replaces the files of the split and
    leaves all others.

    DIR gets images/SPLIT/, label_maps/SPLIT/ with classes.txt, and in annotations/
    instances_SPLIT.json, semantic_SPLIT.json, captions_SPLIT.json and classes_SPLIT.json: for each
    image 20 words to segment it with.

    A folder that `datasets` wrote with save_to_disk is unpacked into images/SPLIT/, label_maps/SPLIT/ and
    annotations/captions_SPLIT.json, whatever it has of these (pip install 'ovtool[datasets]').

    $ ovtool data make collage scenes --split test --count 200 --seed 7 --size 256
    """
    from ovtool.stages import data_make as stage

    result = stage.run(name, folder, scenes, run=run, progress=output.progress)
    settings = result["settings"]
    size = f" of {settings['size']} x {settings['size']}" if "size" in settings else ""
    output.message(
        f"{result['data_set']}: {'would make' if run.dry_run else 'made'} {settings['images']} images{size} "
        f"in {result['folder']}"
    )
    if "size" not in settings and "label_maps" in result["files"]:
        output.message(
            f"its values have no names; write them in {result['files']['label_maps']}/classes.txt"
        )
    if json:
        output.print_json(result)
