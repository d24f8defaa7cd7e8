# SemPLeS as a pipeline: from image-level labels to maps, background prompts, pseudo masks and a segmenter (see
# semples.md).
#
#     make -f examples/semples.mk                # makes semples/scores.json, and all that it needs
#     make -f examples/semples.mk COUNT=200 STEPS=1000 EPOCHS=10 WORK=large
#     make -f examples/semples.mk -j 4 SHARDS=4  # images are segmented in four processes
#     make -f examples/semples.mk DATA=voc OVTOOL_MODEL=ViT-B-16/openai STEPS=20000 EPOCHS=60
#
# DATA=voc learns from the labels of voc:train (TRAIN=train_aug for all of SBD) and measures voc:val as VOC21, DATA=coco
# those of coco14. They lie below DETECTRON2_DATASETS (see datasets.md).
#
# Run it again after an interruption or a change: what is newer than its inputs is left alone, and a command that
# was cut off goes on where it was. An image that cannot be read ends the pipeline with exit status 3; to go on
# without it, write `|| test $$? -eq 3` behind a command.

DATA ?= collage
WORK ?= semples
COUNT ?= 24
SIZE ?= 128
STEPS ?= 60
EPOCHS ?= 2
BATCH ?= 8
SHARDS ?= 1
PART ?= 256
OVTOOL ?= ovtool
export OVTOOL_MODEL ?= tiny

ifeq ($(DATA),collage)
scenes := $(WORK)/scenes
marked := $(scenes)/annotations/instances_demo.json
folder := $(scenes)/images/demo
labels := $(marked) --images $(folder)
test := $(folder)
truth := --ground-truth $(marked) --with-background
inputs := $(marked) $(wildcard $(folder)/*.jpg)
else
TRAIN ?= train
sets := $(or $(DETECTRON2_DATASETS),datasets)
folder := $(if $(filter voc,$(DATA)),$(firstword $(wildcard $(sets)/VOC2012/JPEGImages \
	$(sets)/VOCdevkit/VOC2012/JPEGImages) $(sets)/VOC2012/JPEGImages),$(sets)/coco/$(TRAIN)2014)
labels := $(if $(filter voc,$(DATA)),voc,coco14):$(TRAIN)
test := $(if $(filter voc,$(DATA)),voc,coco14):val
truth := --protocol $(if $(filter voc,$(DATA)),voc21,coco14-val)
inputs := $(wildcard $(folder))
endif

# $(call mapped,FILE,INPUTS,COMMAND): what a command makes of each image. With SHARDS=4 four processes share the
# images, which `make -j 4` runs at once, and a merge joins what they leave: the same bytes. Where a file is up to date
# in spite of a newer input they leave nothing.
define mapped
ifeq ($(SHARDS),1)
$(WORK)/$(1): $(2)
	$(OVTOOL) $(3) -o $$@ --part-size $(PART) --update
else
$(WORK)/$(1): $(foreach n,$(shell seq $(SHARDS)),$(WORK)/$(1).shard-$(n))
	if test -d $$@.parts; then $(OVTOOL) merge $$@.parts --overwrite && rm -r $$@.parts; else touch $$@; fi
	rm $$^
.SECONDARY: $(foreach n,$(shell seq $(SHARDS)),$(WORK)/$(1).shard-$(n))
$(WORK)/$(1).shard-%: $(2)
	$(OVTOOL) $(3) -o $(WORK)/$(1) --part-size $(PART) --shard $$*/$(SHARDS) --update
	touch $$@
endif
endef

.DELETE_ON_ERROR:
.PHONY: all
all: $(WORK)/scores.json

$(marked): | $(WORK)
	$(OVTOOL) data make collage $(scenes) --preset cooccur --count $(COUNT) --size $(SIZE) --update

$(WORK):
	mkdir -p $@

$(WORK)/cams.safetensors: $(inputs) | $(WORK)
	$(OVTOOL) cam --labels $(labels) -o $@ --update

$(WORK)/background.safetensors: $(WORK)/cams.safetensors
	$(OVTOOL) tune-prompts $< --kind background --images $(folder) --crop-scale 1 --steps $(STEPS) -o $@ --update

$(WORK)/matched.safetensors: $(inputs) | $(WORK)
	$(OVTOOL) cam --labels $(labels) --method matching --steps $(STEPS) --batch-size $(BATCH) \
		--save-generator $(WORK)/generator.safetensors -o $@ --update

$(WORK)/pseudo.json: $(WORK)/matched.safetensors $(WORK)/background.safetensors
	$(OVTOOL) refine $< --images $(folder) --apply prompts,crf --epochs $(EPOCHS) --batch-size $(BATCH) \
		--background-prompts $(WORK)/background.safetensors --generator $(WORK)/generator.safetensors -o $@ --update

$(WORK)/segmenter.safetensors: $(WORK)/pseudo.json
	$(OVTOOL) train-segmenter $< --images $(folder) --arch clip --steps $(STEPS) --batch-size $(BATCH) -o $@ --update

$(eval $(call mapped,segments.json,$(WORK)/segmenter.safetensors,segment $(test) \
	--segmenter $(WORK)/segmenter.safetensors))

$(WORK)/scores.json: $(WORK)/segments.json
	$(OVTOOL) evaluate $< $(truth) -o $@ --update
