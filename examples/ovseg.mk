# OVSeg as a pipeline: masks are proposed, pairs of mask and noun are mined from captions, mask prompts are
# tuned on them, and images are segmented in two stages (see ovseg.md).
#
#     make -f examples/ovseg.mk                  # makes ovseg/scores.json, and all that it needs
#     make -f examples/ovseg.mk COUNT=200 STEPS=1000 WORK=large
#     make -f examples/ovseg.mk -j 4 SHARDS=4    # what is made of each image, in four processes
#     make -f examples/ovseg.mk DATA=coco OVTOOL_MODEL=ViT-B-16/openai STEPS=20000
#
# DATA=coco learns from coco:train2017 and measures COCO-Stuff, DATA=voc measures VOC instead; any other data set is
# TEST=ade20k:val PROTOCOL=ade150. They lie below DETECTRON2_DATASETS (see datasets.md). PROPOSER=maskformer:ORG/NAME or
# a file of train-proposer is where masks come from, in place of the default of `ovtool propose`.
#
# Run it again after an interruption or a change: what is newer than its inputs is left alone, and a command that
# was cut off goes on where it was. An image that cannot be read ends the pipeline with exit status 3; to go on
# without it, write `|| test $$? -eq 3` behind a command.

DATA ?= collage
WORK ?= ovseg
COUNT ?= 24
SIZE ?= 128
STEPS ?= 60
BATCH ?= 16
SHARDS ?= 1
PART ?= 256
PROPOSER ?=
OVTOOL ?= ovtool
export OVTOOL_MODEL ?= tiny

# what a proposer of one's own training, or the bundled one of tiny, thinks of its masks helps to name them
embeds := $(filter tiny %.safetensors,$(or $(PROPOSER),$(filter tiny,$(OVTOOL_MODEL))))
# $(call proposed,IMAGES,NAME)
proposed = propose $(1) $(if $(PROPOSER),--proposer $(PROPOSER)) \
	$(if $(embeds),--save-embeddings $(WORK)/$(2).safetensors)

ifeq ($(DATA),collage)
scenes := $(WORK)/scenes
lists := $(scenes)/annotations/classes_demo.json
folder := $(scenes)/images/demo
train := $(folder)
test := $(folder)
captions := $(scenes)/annotations/captions_demo.json --images $(folder)
objects := $(scenes)/annotations/instances_demo.json
words := --classes-per-image $(lists)
truth := --ground-truth $(scenes) --classes-per-image $(lists)
tested := proposals
inputs := $(lists) $(wildcard $(folder)/*.jpg)
else
TRAIN ?= train2017
TEST ?= $(if $(filter voc,$(DATA)),voc:val,coco-stuff:val2017)
PROTOCOL ?= $(if $(filter voc,$(DATA)),voc20,coco-stuff171)
folder := $(or $(DETECTRON2_DATASETS),datasets)/coco/$(TRAIN)
train := coco:$(TRAIN)
test := $(TEST)
captions := $(train)
objects := $(train)
words := --protocol $(PROTOCOL) --recipe ovseg
truth := --ground-truth $(TEST) --protocol $(PROTOCOL)
tested := test-proposals
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
all: $(WORK)/scores.json $(WORK)/recall.json

$(lists): | $(WORK)
	$(OVTOOL) data make collage $(scenes) --count $(COUNT) --size $(SIZE) --update

$(WORK):
	mkdir -p $@

$(eval $(call mapped,proposals.json,$(inputs) | $(WORK),$(call proposed,$(train),embeddings)))

ifneq ($(tested),proposals)
$(eval $(call mapped,test-proposals.json,$(inputs) | $(WORK),$(call proposed,$(test),test-embeddings)))
endif

$(WORK)/recall.json: $(WORK)/proposals.json
	$(OVTOOL) evaluate $< --ground-truth $(objects) --metric recall -o $@ --update

$(eval $(call mapped,pairs.json,$(WORK)/proposals.json,mine-pairs --captions $(captions) \
	--proposals $(WORK)/proposals.json))

$(WORK)/prompts.safetensors: $(WORK)/pairs.json
	$(OVTOOL) tune-prompts $< --images $(folder) --steps $(STEPS) --batch-size $(BATCH) -o $@ --update

$(eval $(call mapped,segments.json,$(WORK)/$(tested).json $(WORK)/prompts.safetensors,segment $(test) $(words) \
	--method two-stage --proposals $(WORK)/$(tested).json --prompts $(WORK)/prompts.safetensors \
	$(if $(embeds),--embeddings $(WORK)/$(tested:proposals=embeddings).safetensors)))

$(WORK)/scores.json: $(WORK)/segments.json
	$(OVTOOL) evaluate $< $(truth) -o $@ --update
