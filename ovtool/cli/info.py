"""`ovtool info FILE`: what a file is and what made it."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import output
from ovtool.settings.field import Argument
from ovtool.settings.shared import Json


def info(
    file: Annotated[str, Argument("A file or folder of ovtool's; - is stdin.", metavar="FILE")],
    *,
    json: Json = False,
) -> None:
    """Say what a file is, what it holds, and which command, version and model made it.

    FILE is a COCO JSON, a safetensors file (its tensors are not loaded), a label map or other
    image, a folder of parts, or a folder of label maps. A file is not validated: `ovtool check`
    does that.

    $ ovtool info breakfast.segments.json
    """
    from ovtool.stages import info as stage

    facts = stage.run(file)
    if json:
        output.print_json(facts)
    else:
        output.print_facts(facts)
