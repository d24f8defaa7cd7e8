"""`ovtool mine-pairs --captions SPEC`: the nouns of captions, each with the mask that it means."""

from ovtool.cli import output
from ovtool.cli.options import (
    BatchSizeOpt,
    CaptionsOpt,
    CaptionsPerImageOpt,
    ChunksOpt,
    CropsOpt,
    DeviceOpt,
    DryRunOpt,
    ImagesOpt,
    JsonOpt,
    LimitOpt,
    MatchingOpt,
    MinSimilarityOpt,
    ModelOpt,
    NoStopOpt,
    OutputOpt,
    OverwriteOpt,
    PartSizeOpt,
    PosOpt,
    PrecisionOpt,
    ProposalsOpt,
    ProposerOpt,
    QualityWeightOpt,
    ResumeOpt,
    SeedOpt,
    SpacyModelOpt,
    StopOpt,
    StrictOpt,
    TemplatesOpt,
)


def mine_pairs(
    captions: CaptionsOpt,
    images: ImagesOpt = None,
    captions_per_image: CaptionsPerImageOpt = "1",
    proposals: ProposalsOpt = None,
    proposer: ProposerOpt = None,
    pos: PosOpt = "NOUN",
    chunks: ChunksOpt = False,
    stop: StopOpt = None,
    no_stop: NoStopOpt = False,
    spacy_model: SpacyModelOpt = None,
    templates: TemplatesOpt = "one",
    matching: MatchingOpt = "cosine",
    quality_weight: QualityWeightOpt = 0.0,
    min_similarity: MinSimilarityOpt = None,
    model: ModelOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    batch_size: BatchSizeOpt = None,
    seed: SeedOpt = 0,
    crops: CropsOpt = None,
    limit: LimitOpt = None,
    out: OutputOpt = None,
    resume: ResumeOpt = False,
    part_size: PartSizeOpt = 256,
    strict: StrictOpt = False,
    overwrite: OverwriteOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Find the nouns of captions and give each the mask that it means: what `ovtool tune-prompts` reads.

    Each noun of an image takes the proposal whose masked crop is closest to it in CLIP's space. The
    result is a COCO JSON: the nouns (lemmas) are its categories, the cosine is the score of a mask,
    caption_id, span and surface say where the noun stands. Words that name no region are left out
    unless --no-stop. Without --proposals the default proposer runs on the way.

    $ ovtool mine-pairs --captions coco

    $ ovtool mine-pairs --captions captions.json --images photos/ --captions-per-image all -o pairs.json
    """
    from ovtool.runtime.runs import Run
    from ovtool.stages import mine_pairs as stage

    outcome = stage.run(
        captions,
        images=images,
        captions_per_image=captions_per_image,
        proposals_file=proposals,
        proposer=proposer,
        pos=pos,
        chunks=chunks,
        stop=stop,
        no_stop=no_stop,
        spacy_model=spacy_model,
        templates=templates,
        matching=matching,
        quality_weight=quality_weight,
        min_similarity=min_similarity,
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        seed=seed,
        crops=crops,
        limit=limit,
        out=out,
        how=Run(part_size, resume, overwrite, strict, dry_run, output.progress),
    )
    pairs = outcome.dataset.annotations
    if pairs:
        mean, nouns = len(pairs) / len(outcome.dataset.images), {pair.category_id for pair in pairs}
        output.message(f"{mean:.2f} pairs an image, unique nouns: {len(nouns)}")
    output.outcome(outcome, "mine pairs from", as_json=json)
