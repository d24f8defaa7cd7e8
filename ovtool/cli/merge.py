"""`ovtool merge FOLDERS`: the parts of shards, to one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from ovtool.cli import outcomes
from ovtool.cli.declare import Only
from ovtool.settings.field import Argument
from ovtool.settings.shared import Json, Out, Run


def merge(
    folders: Annotated[
        Sequence[str],
        Argument("Folders of parts that the shards of one run left, OUT.parts.", metavar="FOLDERS"),
    ],
    *,
    out: Out = None,
    json: Json = False,
    run: Annotated[Run, Only("overwrite", "update", "dry_run")] = Run(),
) -> None:
    """Join the parts that the shards of a run left, into the file that one process would have written.

    The shards write whole parts into OUT.parts, in any order, on any number of machines. Parts that are
    missing, there twice, or of runs with other settings are refused. The folder stays; remove it when
    the file is there. What a run writes beside its file (--crops, --save-embeddings) is completed too.

    $ ovtool merge photos.json.parts
    """
    from ovtool.stages import merge as stage

    outcome = stage.run(folders, out=out, run=run)
    outcomes.say(outcome, "merge", as_json=json)
