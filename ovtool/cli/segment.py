"""`ovtool segment IMAGES --classes "teapot,apple"`: one mask for each word and image."""

from __future__ import annotations

import dataclasses
from typing import Any

from ovtool.cli import output
from ovtool.settings.segment import Drawn, Fused, Patch, Trained, TwoStage
from ovtool.settings.shared import Compute, Inputs, Json, Out, Run, Source
from ovtool.settings.words import Words


def segment(
    inputs: Inputs = (),
    words: Words | str = Words(),
    method: Patch | Fused | TwoStage | Trained = Fused(),
    *,
    out: Out = None,
    drawn: Drawn = Drawn(),
    json: Json = False,
    source: Source = Source(),
    run: Run = Run(),
    compute: Compute = Compute(),
) -> None:
    """Segment images by words: a mask, with a score, for each word and image, as COCO JSON.

    With --classes alone a list of stuff words competes and is dropped, so that one word does not
    claim the whole image; --background none turns that off.

    One image without -o gives NAME.segments.json and NAME.overlay.png in the current folder. A data
    set that brings its own words (collage:test) needs no --classes.

    $ ovtool segment photo.jpg --classes "teapot,apple"

    $ ovtool segment photos/ --vocabulary ade150 -o photos.json --overlays seen/ --resume

    $ ovtool segment photo.jpg --classes "teapot,apple" --method two-stage

    $ ovtool segment photos/ --segmenter s.safetensors --scales 0.75,1,1.25 --flip --crf pydensecrf
    """
    from ovtool.runtime import device, runs
    from ovtool.stages import segment as stage

    device.set_threads(compute.threads)
    outcome = stage.run(
        list(inputs),
        **vars(Words(classes=words) if isinstance(words, str) else words),
        **_of_method(method),
        **vars(drawn),
        coco_file=source.coco,
        images=source.images,
        limit=source.limit,
        model=compute.model,
        device=compute.device,
        precision=compute.precision,
        batch_size=run.batch_size,
        out=out,
        how=runs.Run(
            part_size=run.part_size,
            resume=run.resume,
            overwrite=run.overwrite,
            strict=run.strict,
            dry_run=run.dry_run,
            progress=output.progress,
        ),
    )
    output.outcome(outcome, "segment", as_json=json)


def _of_method(method: Patch | Fused | TwoStage | Trained) -> dict[str, Any]:
    """The method as the stage takes it now; this goes when the stage takes the object."""
    own = dataclasses.asdict(method)
    for name in ("pacl", "prompts"):
        if own.get(name) is not None:
            own[name] = str(own[name])
    if "scales" in own:
        is_one = own["scales"] == (1.0,)
        own["scales"] = None if is_one else ",".join(f"{scale:g}" for scale in own["scales"])
    for old, new in (("proposals", "proposals_file"), ("segmenter", "segmenter_file")):
        if old in own:
            own[new] = own.pop(old)
    names = {Patch: "patch", Fused: "fused", TwoStage: "two-stage"}
    return own | ({"method": names[type(method)]} if type(method) in names else {})
