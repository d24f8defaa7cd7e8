# OVSeg as a pipeline: masks are proposed, pairs of mask and noun are mined from captions, mask prompts are
# tuned on them, and images are segmented in two stages (see ovseg.md).
#
#     make -f examples/ovseg.mk                  # makes ovseg/scores.json, and all that it needs
#     make -f examples/ovseg.mk COUNT=200 STEPS=1000 WORK=large
#
# Run it again after an interruption or a change: what is newer than its inputs is left alone, and a command that
# was cut off goes on where it was. An image that cannot be read ends the pipeline with exit status 3; to go on
# without it, write `|| test $$? -eq 3` behind a command.

WORK ?= ovseg
COUNT ?= 24
SIZE ?= 128
STEPS ?= 60
BATCH ?= 16
OVTOOL ?= ovtool
export OVTOOL_MODEL ?= tiny

data := $(WORK)/scenes/annotations
folder := $(WORK)/scenes/images/demo
lists := $(data)/classes_demo.json
images := $(wildcard $(folder)/*.jpg)

.DELETE_ON_ERROR:
.PHONY: all
all: $(WORK)/scores.json $(WORK)/recall.json

$(lists):
	mkdir -p $(WORK)
	$(OVTOOL) data make collage $(WORK)/scenes --count $(COUNT) --size $(SIZE) --update

$(WORK)/proposals.json: $(lists) $(images)
	$(OVTOOL) propose $(folder) --save-embeddings $(WORK)/embeddings.safetensors -o $@ --update

$(WORK)/recall.json: $(WORK)/proposals.json
	$(OVTOOL) evaluate $< --ground-truth $(data)/instances_demo.json --metric recall -o $@ --update

$(WORK)/pairs.json: $(WORK)/proposals.json
	$(OVTOOL) mine-pairs --captions $(data)/captions_demo.json --images $(folder) --proposals $< -o $@ --update

$(WORK)/prompts.safetensors: $(WORK)/pairs.json
	$(OVTOOL) tune-prompts $< --images $(folder) --steps $(STEPS) --batch-size $(BATCH) -o $@ --update

$(WORK)/segments.json: $(WORK)/proposals.json $(WORK)/prompts.safetensors
	$(OVTOOL) segment $(folder) --classes-per-image $(lists) --method two-stage --proposals $< \
		--embeddings $(WORK)/embeddings.safetensors --prompts $(WORK)/prompts.safetensors -o $@ --update

$(WORK)/scores.json: $(WORK)/segments.json
	$(OVTOOL) evaluate $< --ground-truth $(WORK)/scenes --classes-per-image $(lists) -o $@ --update
