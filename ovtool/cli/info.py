"""`ovtool info FILE`: what a file is and what made it."""

from typing import Annotated

import typer

from ovtool.cli import output
from ovtool.cli.options import JsonOpt


def info(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file or folder of ovtool's; - is stdin.")
    ],
    json: JsonOpt = False,
) -> None:
    """Say what a file is, what it holds, and which command, version and model made it.

    FILE is a COCO JSON, a safetensors file (its tensors are not loaded), a label map or other
    picture, a folder of parts, or a folder of label maps. A file is not validated: `ovtool check`
    does that.

    $ ovtool info breakfast.segments.json
    """
    from ovtool.stages import info as stage

    facts = stage.run(file)
    if json:
        output.print_json(facts)
    else:
        output.print_facts(facts)
