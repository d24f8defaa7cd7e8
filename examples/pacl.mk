# PACL as a pipeline: a head is trained on captions, images are segmented with it, and it is compared with the
# CLIP as it is (see pacl.md).
#
#     make -f examples/pacl.mk                   # makes pacl/scores.json and pacl/alignment.json
#     make -f examples/pacl.mk COUNT=200 STEPS=1000 WORK=large
#
# Run it again after an interruption or a change: what is newer than its inputs is left alone, and a command that
# was cut off goes on where it was. An image that cannot be read ends the pipeline with exit status 3; to go on
# without it, write `|| test $$? -eq 3` behind a command.

WORK ?= pacl
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
all: $(WORK)/scores.json $(WORK)/alignment.json

$(lists):
	mkdir -p $(WORK)
	$(OVTOOL) data make collage $(WORK)/scenes --count $(COUNT) --size $(SIZE) --update

$(WORK)/head.safetensors: $(lists) $(images)
	$(OVTOOL) train-pacl --captions $(data)/captions_demo.json --images $(folder) --nouns \
		--last-block naclip+clip --steps $(STEPS) --batch-size $(BATCH) -o $@ --update

$(WORK)/segments.json: $(WORK)/head.safetensors
	$(OVTOOL) segment $(folder) --classes-per-image $(lists) --method patch --pacl $< -o $@ --update

$(WORK)/scores.json: $(WORK)/segments.json
	$(OVTOOL) evaluate $< --ground-truth $(WORK)/scenes --classes-per-image $(lists) -o $@ --update

$(WORK)/alignment.json: $(WORK)/head.safetensors
	$(OVTOOL) probe alignment $(WORK)/scenes --pacl $< --json > $@
