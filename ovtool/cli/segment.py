"""`ovtool segment IMAGES --classes "teapot,apple"`: one mask for each word and image."""

from ovtool.cli import output
from ovtool.cli.options import (
    BackgroundOpt,
    BackgroundTokensOpt,
    BatchSizeOpt,
    ClassesFileOpt,
    ClassesOpt,
    ClassesPerImageOpt,
    CocoOpt,
    CrfOpt,
    CropSizeOpt,
    DeviceOpt,
    DryRunOpt,
    EmbeddingsOpt,
    EnsembleOpt,
    FlipOpt,
    HeatmapsOpt,
    ImagesOpt,
    InputsArg,
    JsonOpt,
    LabelMapsOpt,
    LastBlockOpt,
    LimitOpt,
    LogitScaleOpt,
    MaxEntropyOpt,
    MethodOpt,
    MinScoreOpt,
    ModelOpt,
    OutputOpt,
    OverlaysOpt,
    OverwriteOpt,
    PaclOpt,
    PartSizeOpt,
    PatchStrideOpt,
    PrecisionOpt,
    PromptsOpt,
    ProposalsOpt,
    ProposerOpt,
    RegionFeaturesOpt,
    ResumeOpt,
    ScalesOpt,
    SegmenterOpt,
    ShortSideOpt,
    StrictOpt,
    StrideOpt,
    TemplatesOpt,
    VocabularyOpt,
    WindowOpt,
)


def segment(
    inputs: InputsArg = None,
    classes: ClassesOpt = None,
    classes_file: ClassesFileOpt = None,
    vocabulary: VocabularyOpt = None,
    classes_per_image: ClassesPerImageOpt = None,
    background: BackgroundOpt = None,
    model: ModelOpt = None,
    method: MethodOpt = "fused",
    last_block: LastBlockOpt = None,
    short_side: ShortSideOpt = None,
    window: WindowOpt = None,
    stride: StrideOpt = None,
    logit_scale: LogitScaleOpt = None,
    pacl: PaclOpt = None,
    patch_stride: PatchStrideOpt = None,
    scales: ScalesOpt = None,
    flip: FlipOpt = False,
    templates: TemplatesOpt = "one",
    min_score: MinScoreOpt = 0.0,
    max_entropy: MaxEntropyOpt = None,
    proposer: ProposerOpt = None,
    proposals: ProposalsOpt = None,
    embeddings: EmbeddingsOpt = None,
    prompts: PromptsOpt = None,
    ensemble: EnsembleOpt = None,
    region_features: RegionFeaturesOpt = None,
    background_tokens: BackgroundTokensOpt = None,
    crop_size: CropSizeOpt = None,
    segmenter: SegmenterOpt = None,
    crf: CrfOpt = None,
    out: OutputOpt = None,
    label_maps: LabelMapsOpt = None,
    overlays: OverlaysOpt = None,
    heatmaps: HeatmapsOpt = None,
    coco: CocoOpt = None,
    images: ImagesOpt = None,
    limit: LimitOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    batch_size: BatchSizeOpt = None,
    resume: ResumeOpt = False,
    part_size: PartSizeOpt = 256,
    strict: StrictOpt = False,
    overwrite: OverwriteOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Cut pictures up by words: a mask, with a score, for each word and image, as COCO JSON.

    With --classes alone a list of stuff words competes and is dropped, so that one word does not
    claim the whole picture; --background none turns that off.

    Without --proposer, fused takes regions, and two-stage the default that is named there.

    One image without -o gives NAME.segments.json and NAME.overlay.png in the current folder. A data
    set that brings its own words (collage:test) needs no --classes.

    $ ovtool segment photo.jpg --classes "teapot,apple"

    $ ovtool segment photos/ --vocabulary ade150 -o photos.json --overlays seen/ --resume

    $ ovtool segment photo.jpg --classes "teapot,apple" --method two-stage

    $ ovtool segment photos/ --segmenter s.safetensors --scales 0.75,1,1.25 --flip --crf pydensecrf
    """
    from ovtool.runtime.runs import Run
    from ovtool.stages import segment as stage

    outcome = stage.run(
        inputs or [],
        classes=classes,
        classes_file=classes_file,
        vocabulary=vocabulary,
        classes_per_image=classes_per_image,
        background=background,
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        method=method,
        last_block=last_block,
        short_side=short_side,
        window=window,
        stride=stride,
        logit_scale=logit_scale,
        pacl=pacl,
        patch_stride=patch_stride,
        scales=scales,
        flip=flip,
        templates=templates,
        min_score=min_score,
        max_entropy=max_entropy,
        proposer=proposer,
        proposals_file=proposals,
        embeddings=embeddings,
        prompts=prompts,
        ensemble=ensemble,
        region_features=region_features,
        background_tokens=background_tokens,
        crop_size=crop_size,
        segmenter_file=segmenter,
        crf=crf,
        label_maps=label_maps,
        overlays=overlays,
        heatmaps=heatmaps,
        coco_file=coco,
        images=images,
        limit=limit,
        out=out,
        how=Run(part_size, resume, overwrite, strict, dry_run, output.progress),
    )
    output.outcome(outcome, "segment", as_json=json)
