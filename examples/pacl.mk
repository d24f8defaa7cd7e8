# PACL as a pipeline: a head is trained on captions, images are segmented with it, and it is compared with the
# CLIP as it is (see pacl.md).
#
#     make -f examples/pacl.mk                   # makes pacl/scores.json and pacl/alignment.json
#     make -f examples/pacl.mk COUNT=200 STEPS=1000 WORK=large
#     make -f examples/pacl.mk -j 4 SHARDS=4     # images are segmented in four processes
#     make -f examples/pacl.mk DATA=coco OVTOOL_MODEL=ViT-B-16/openai STEPS=20000
#
# DATA=coco learns from the captions of coco:train2017 and measures COCO-Stuff, DATA=voc measures VOC instead; any
# other data set is TEST=ade20k:val PROTOCOL=ade150. They lie below DETECTRON2_DATASETS (see datasets.md).
#
# Run it again after an interruption or a change: what is newer than its inputs is left alone, and a command that
# was cut off goes on where it was. An image that cannot be read ends the pipeline with exit status 3; to go on
# without it, write `|| test $$? -eq 3` behind a command.

DATA ?= collage
WORK ?= pacl
COUNT ?= 24
SIZE ?= 128
STEPS ?= 60
BATCH ?= 16
SHARDS ?= 1
PART ?= 256
OVTOOL ?= ovtool
export OVTOOL_MODEL ?= tiny

ifeq ($(DATA),collage)
scenes := $(WORK)/scenes
lists := $(scenes)/annotations/classes_demo.json
folder := $(scenes)/images/demo
test := $(folder)
captions := $(scenes)/annotations/captions_demo.json --images $(folder)
words := --classes-per-image $(lists)
truth := --ground-truth $(scenes) --classes-per-image $(lists)
aligned := $(scenes)
inputs := $(lists) $(wildcard $(folder)/*.jpg)
else
TRAIN ?= train2017
TEST ?= $(if $(filter voc,$(DATA)),voc:val,coco-stuff:val2017)
PROTOCOL ?= $(if $(filter voc,$(DATA)),voc20,coco-stuff171)
test := $(TEST)
captions := coco:$(TRAIN)
words := --protocol $(PROTOCOL)
truth := --ground-truth $(TEST) --protocol $(PROTOCOL)
aligned := coco:val2017
inputs := $(wildcard $(or $(DETECTRON2_DATASETS),datasets)/coco/$(TRAIN))
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
all: $(WORK)/scores.json $(WORK)/alignment.json

$(lists): | $(WORK)
	$(OVTOOL) data make collage $(scenes) --count $(COUNT) --size $(SIZE) --update

$(WORK):
	mkdir -p $@

$(WORK)/head.safetensors: $(inputs) | $(WORK)
	$(OVTOOL) train-pacl --captions $(captions) --nouns --last-block naclip+clip --steps $(STEPS) \
		--batch-size $(BATCH) -o $@ --update

$(eval $(call mapped,segments.json,$(WORK)/head.safetensors,segment $(test) $(words) --method patch \
	--pacl $(WORK)/head.safetensors))

$(WORK)/scores.json: $(WORK)/segments.json
	$(OVTOOL) evaluate $< $(truth) -o $@ --update

$(WORK)/alignment.json: $(WORK)/head.safetensors
	$(OVTOOL) probe alignment $(aligned) --pacl $< --json > $@
