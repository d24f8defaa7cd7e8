"""`ovtool doctor`: the state of this machine, for people and for bug reports."""

import typer

from ovtool.cli import output
from ovtool.cli.options import JsonOpt


def doctor(json: JsonOpt = False) -> None:
    """List versions, device, caches, bundled weights and the model hub; say how to mend what is missing.

    The exit status is 1 if something is missing that every command needs, else 0. The hub is given
    3 seconds to answer.
    """
    from ovtool.stages import doctor as stage

    facts = stage.run()
    if json:
        output.print_json(facts)
    else:
        output.print_facts(facts)
    if any(item["required"] for item in facts["missing"]):
        raise typer.Exit(1)
