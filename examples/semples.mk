# SemPLeS as a pipeline: from image-level labels to maps, background prompts, pseudo masks and a segmenter (see
# semples.md).
#
#     make -f examples/semples.mk                # makes semples/scores.json, and all that it needs
#     make -f examples/semples.mk COUNT=200 STEPS=1000 EPOCHS=10 WORK=large
#
# Run it again after an interruption or a change: what is newer than its inputs is left alone, and a command that
# was cut off goes on where it was. An image that cannot be read ends the pipeline with exit status 3; to go on
# without it, write `|| test $$? -eq 3` behind a command.

WORK ?= semples
COUNT ?= 24
SIZE ?= 128
STEPS ?= 60
EPOCHS ?= 2
BATCH ?= 8
OVTOOL ?= ovtool
export OVTOOL_MODEL ?= tiny

data := $(WORK)/scenes/annotations
folder := $(WORK)/scenes/images/demo
labels := $(data)/instances_demo.json
images := $(wildcard $(folder)/*.jpg)

.DELETE_ON_ERROR:
.PHONY: all
all: $(WORK)/scores.json

$(labels):
	mkdir -p $(WORK)
	$(OVTOOL) data make collage $(WORK)/scenes --preset cooccur --count $(COUNT) --size $(SIZE) --update

$(WORK)/cams.safetensors: $(labels) $(images)
	$(OVTOOL) cam --labels $(labels) --images $(folder) -o $@ --update

$(WORK)/background.safetensors: $(WORK)/cams.safetensors
	$(OVTOOL) tune-prompts $< --kind background --images $(folder) --crop-scale 1 --steps $(STEPS) -o $@ --update

$(WORK)/matched.safetensors: $(labels) $(images)
	$(OVTOOL) cam --labels $(labels) --images $(folder) --method matching --steps $(STEPS) --batch-size $(BATCH) \
		--save-generator $(WORK)/generator.safetensors -o $@ --update

$(WORK)/pseudo.json: $(WORK)/matched.safetensors $(WORK)/background.safetensors
	$(OVTOOL) refine $< --images $(folder) --apply prompts,crf --epochs $(EPOCHS) --batch-size $(BATCH) \
		--background-prompts $(WORK)/background.safetensors --generator $(WORK)/generator.safetensors -o $@ --update

$(WORK)/segmenter.safetensors: $(WORK)/pseudo.json
	$(OVTOOL) train-segmenter $< --images $(folder) --arch clip --steps $(STEPS) --batch-size $(BATCH) -o $@ --update

$(WORK)/segments.json: $(WORK)/segmenter.safetensors
	$(OVTOOL) segment $(folder) --segmenter $< -o $@ --update

$(WORK)/scores.json: $(WORK)/segments.json
	$(OVTOOL) evaluate $< --ground-truth $(labels) --with-background -o $@ --update
