"""`ovtool mine-pairs --captions SPEC`: the nouns of captions, each with the mask that it means."""

from __future__ import annotations

from ovtool.cli import outcomes, output
from ovtool.settings.pairs import Crops, Matching, Nouns
from ovtool.settings.shared import Captions, Compute, ImagesFolder, Json, Limit, Out, Run


def mine_pairs(
    captions: Captions,
    images: ImagesFolder = None,
    nouns: Nouns = Nouns(),
    matching: Matching = Matching(),
    *,
    crops: Crops = None,
    limit: Limit = None,
    out: Out = None,
    json: Json = False,
    run: Run = Run(),
    compute: Compute = Compute(),
) -> None:
    """Find the nouns of captions, and give each of them the mask that it means.

    Each noun of an image takes the proposal whose masked crop is closest to it in CLIP's space. The
    result is what `ovtool tune-prompts` reads: a COCO JSON whose categories are the nouns (lemmas); the
    cosine is the score of a mask, and caption_id, span and surface say where the noun stands. Words that
    name no region are left out unless --no-stop. Without --proposals the default proposer runs on the
    way. Of a data set without captions (voc:train) the names of an image's classes are its nouns.

    $ ovtool mine-pairs --captions coco

    $ ovtool mine-pairs --captions captions.json --images photos/ --captions-per-image all -o pairs.json
    """
    from ovtool.stages import mine_pairs as stage

    outcome = stage.run(
        captions,
        images,
        nouns,
        matching,
        crops=crops,
        limit=limit,
        out=out,
        run=run,
        compute=compute,
        progress=output.progress,
    )
    pairs = outcome.dataset.annotations
    if pairs:
        mean = len(pairs) / len(outcome.dataset.images)
        unique = len({pair.category_id for pair in pairs})
        output.message(f"{mean:.2f} pairs an image, unique nouns: {unique}")
    outcomes.say(outcome, "mine pairs from", as_json=json)
