"""`ovtool segment IMAGES --classes "teapot,apple"`: one mask for each word and image."""

from __future__ import annotations

from ovtool.cli import outcomes, output
from ovtool.settings import protocols
from ovtool.settings.segment import Drawn, Fused, Method
from ovtool.settings.shared import Compute, Format, Inputs, Json, Out, Run, Source
from ovtool.settings.words import Words


def segment(
    inputs: Inputs = (),
    words: Words | str = Words(),
    method: Method = Fused(),
    *,
    out: Out = None,
    format: Format = "coco",
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
    set by its name (voc:val) needs no --classes, nor does a COCO JSON of masks (--coco FILE --images DIR): its own
    classes are looked for.

    $ ovtool segment photo.jpg --classes "teapot,apple"

    $ ovtool segment photos/ --vocabulary ade150 -o photos.json --overlays seen/ --resume

    $ ovtool segment photo.jpg --classes "teapot,apple" --method two-stage

    $ ovtool segment voc:val --protocol voc21 --recipe naclip -o voc.segments.json

    $ ovtool segment photos/ --segmenter s.safetensors --scales 0.75,1,1.25 --flip --crf pydensecrf
    """
    from ovtool.stages import segment as stage

    outcome = stage.run(
        inputs,
        words,
        method,
        out=out,
        format=format,
        drawn=drawn,
        source=source,
        run=run,
        compute=compute,
        progress=output.progress,
    )
    protocol = words.protocol if isinstance(words, Words) else None
    if protocol is not None:
        output.message(protocols.sentence(protocol))
    outcomes.say(outcome, "segment", as_json=json)
