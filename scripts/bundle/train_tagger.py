"""Trains the bundled English tagger, `ovtool/weights/tagger/`, and measures it.

    python scripts/bundle/train_tagger.py --data ../shared/data/ud-ewt

Data: the Universal Dependencies English Web Treebank (`train.tsv.gz`, `dev.tsv.gz`: FORM, UPOS,
XPOS, whether a space follows; a blank line between sentences) and captions from the grammar of
`caption_grammar.py`. The pipeline: a convolutional tok2vec, a tagger of Penn tags, an attribute
ruler from them to universal ones, and a rule lemmatizer with the tables of spacy-lookups-data.

Words seen fewer than `COMMON` times are known to the network by their class, what WordNet and Brown
clusters say of them, through spaCy's own table of norms; prefix, suffix and shape stay theirs.
"""

import argparse
import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import spacy
from caption_grammar import captions
from spacy.language import Language
from spacy.lookups import Lookups, load_lookups
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Adam

ROOT = Path(__file__).parents[2]
OUT = ROOT / "ovtool" / "weights" / "tagger"
HAND_TAGGED = ROOT / "tests" / "data" / "captions_tagged.tsv"
COMMON = 3  # from this count on a word has a vector of its own
CLUSTERED = 60_000  # so many of the most frequent words are known by their Brown cluster alone,
LISTED = 150_000  # and so many if WordNet lists them
CLUSTER_BITS = 10
ATTRS = {"NORM": 4000, "PREFIX": 250, "SUFFIX": 1500, "SHAPE": 250}
COMMON_NOUNS = frozenset(("NN", "NNS"))
TAGS = {  # Penn tag: universal part of speech, features
    "NN": ("NOUN", "Number=Sing"), "NNS": ("NOUN", "Number=Plur"),
    "NNP": ("PROPN", "Number=Sing"), "NNPS": ("PROPN", "Number=Plur"),
    "JJ": ("ADJ", "Degree=Pos"), "JJR": ("ADJ", "Degree=Cmp"), "JJS": ("ADJ", "Degree=Sup"),
    "RB": ("ADV", ""), "RBR": ("ADV", "Degree=Cmp"), "RBS": ("ADV", "Degree=Sup"),
    "VB": ("VERB", "VerbForm=Inf"), "VBP": ("VERB", "VerbForm=Fin|Tense=Pres"),
    "VBZ": ("VERB", "VerbForm=Fin|Tense=Pres|Person=3"), "VBD": ("VERB", "VerbForm=Fin|Tense=Past"),
    "VBG": ("VERB", "VerbForm=Part|Aspect=Prog"), "VBN": ("VERB", "VerbForm=Part|Aspect=Perf"),
    "MD": ("AUX", ""), "IN": ("ADP", ""), "RP": ("ADP", ""), "TO": ("PART", ""), "POS": ("PART", ""),
    "DT": ("DET", ""), "PDT": ("DET", ""), "WDT": ("DET", ""), "PRP$": ("PRON", "Poss=Yes"),
    "PRP": ("PRON", ""), "WP": ("PRON", ""), "WP$": ("PRON", "Poss=Yes"), "EX": ("PRON", ""),
    "WRB": ("ADV", ""), "CC": ("CCONJ", ""), "CD": ("NUM", ""), "UH": ("INTJ", ""), "$": ("SYM", ""),
    "SYM": ("SYM", ""), "LS": ("NUM", ""), "FW": ("X", ""), "GW": ("X", ""), "ADD": ("X", ""),
    "AFX": ("X", ""), "NFP": ("PUNCT", ""), ".": ("PUNCT", ""), ",": ("PUNCT", ""),
    ":": ("PUNCT", ""), "``": ("PUNCT", ""), "''": ("PUNCT", ""), "HYPH": ("PUNCT", ""),
    "-LRB-": ("PUNCT", ""), "-RRB-": ("PUNCT", ""),
}  # fmt: skip

Sentence = tuple[list[str], list[str], list[bool]]  # words, Penn tags, whether a space follows


def read_treebank(source: Path) -> list[Sentence]:
    """The sentences of a gzipped column file."""
    collected: list[Sentence] = []
    with gzip.open(source, "rt", encoding="utf-8") as handle:
        for block in handle.read().strip("\n").split("\n\n"):
            rows = [line.split("\t") for line in block.split("\n")]
            words, tags = [row[0] for row in rows], [row[2] for row in rows]
            collected.append((words, tags, [row[3] == "1" for row in rows]))
    return collected


def lower_cased(sentences: Sequence[Sentence], share: float, seed: int) -> list[Sentence]:
    """Some of the sentences without capitals, as captions are often written."""
    rng = random.Random(seed)
    sampled = [one for one in sentences if rng.random() < share]
    return [([word.lower() for word in words], tags, spaces) for words, tags, spaces in sampled]


def inflected(word: str) -> Iterator[tuple[str, str]]:
    """The regular forms of a word, each with the letter of its ending."""
    stem = word[:-1] if word.endswith("e") else word
    yield word, ""
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        yield word[:-1] + "ies", "s"
        yield word[:-1] + "ied", "d"
    else:
        yield word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s"), "s"
        yield stem + "ed", "d"
    yield stem + "ing", "g"
    yield stem + stem[-1:] + "ing", "g"


def word_classes(frequent: frozenset[str]) -> dict[str, str]:
    """For words that are not `frequent`: the parts of speech that WordNet lists, how they are
    inflected, and the Brown cluster; as spaCy's table of norms has it, capitalised forms too."""
    index = load_lookups("en", ["lemma_index"]).get_table("lemma_index")
    listed: dict[str, str] = {}
    for kind in ("noun", "verb", "adj", "adv"):
        for lemma in index[spacy.strings.get_string_id(kind)]:
            if not lemma.isalpha() or not 2 < len(lemma) < 15:
                continue
            for form, ending in inflected(lemma):
                fits = {"": True, "s": kind in ("noun", "verb")}.get(ending, kind == "verb")
                mark = kind[0 if kind != "adv" else 2] + ending
                if fits and mark not in listed.get(form, "").split("+"):
                    listed[form] = "+".join(filter(None, (listed.get(form, ""), mark)))
    clusters = _lookup_file("lexeme_cluster")
    likely = _lookup_file("lexeme_prob")
    ranked = sorted(clusters, key=lambda word: (-likely.get(word, -30), word))
    classes: dict[str, str] = {}
    for rank, word in enumerate(ranked[:LISTED]):
        if word.lower() in frequent or not word.isalpha():
            continue
        if rank >= CLUSTERED and word not in listed:
            continue
        cluster = clusters.get(word, clusters.get(word.lower(), 0)) & ((1 << CLUSTER_BITS) - 1)
        for form in (word, word.capitalize()):
            classes.setdefault(form, f"{listed.get(word.lower(), '')}.{cluster:x}")
    return classes


def _lookup_file(name: str) -> dict[str, int]:
    import spacy_lookups_data  # large, and needed for training alone

    folder = Path(spacy_lookups_data.__file__).parent / "data"
    with gzip.open(folder / f"en_{name}.json.gz", "rt", encoding="utf-8") as handle:
        table: dict[str, int] = json.load(handle)
    return table


def build(width: int, depth: int) -> Language:
    """The pipeline before training."""
    tok2vec = {
        "@architectures": "spacy.Tok2Vec.v2",
        "embed": {
            "@architectures": "spacy.MultiHashEmbed.v2",
            "width": width,
            "attrs": list(ATTRS),
            "rows": list(ATTRS.values()),
            "include_static_vectors": False,
        },
        "encode": {
            "@architectures": "spacy.MaxoutWindowEncoder.v2",
            "width": width,
            "depth": depth,
            "window_size": 1,
            "maxout_pieces": 3,
        },
    }
    nlp = spacy.blank("en")
    nlp.add_pipe(
        "tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": tok2vec}}
    )
    ruler = nlp.add_pipe("attribute_ruler")
    for tag, (pos, features) in TAGS.items():
        ruler.add([[{"TAG": tag}]], {"POS": pos, "MORPH": features})  # type: ignore[attr-defined]
    nlp.add_pipe("lemmatizer", config={"mode": "rule"})
    nlp.meta.update(
        name="ovtool_tagger",
        version="1.0.0",
        spacy_version=">=3.8.0,<3.9.0",
        description="Penn tags, universal parts of speech and lemmas of English captions",
        license="CC BY-SA 4.0",
    )
    return nlp


def set_norms(nlp: Language, classes: dict[str, str]) -> None:
    """Makes the classes the norms of their words."""
    norms = Lookups()
    norms.add_table("lexeme_norm", classes)
    nlp.vocab.lookups = norms


def examples(nlp: Language, sentences: Sequence[Sentence]) -> list[Example]:
    return [
        Example(Doc(nlp.vocab, w, s), Doc(nlp.vocab, w, s, tags=t)) for w, t, s in sentences if w
    ]


def f1(nlp: Language, sentences: Sequence[Sentence]) -> tuple[float, float]:
    """F1 of common nouns and the accuracy of all tags, on words as they were cut by hand."""
    right = predicted = true = exact = count = 0
    docs = nlp.pipe((Doc(nlp.vocab, w, s) for w, _, s in sentences), batch_size=256)
    for doc, (_, tags, _) in zip(docs, sentences, strict=True):
        for token, tag in zip(doc, tags, strict=True):
            here, there = token.tag_ in COMMON_NOUNS, tag in COMMON_NOUNS
            right, predicted, true = right + (here and there), predicted + here, true + there
            exact, count = exact + (token.tag_ == tag), count + 1
    return 2 * right / max(1, predicted + true), exact / count


def f1_by_hand(nlp: Language, source: Path = HAND_TAGGED) -> float:
    """F1 of common nouns on captions with their nouns in brackets, cut by the pipeline itself."""
    right = predicted = true = 0
    for line in source.read_text(encoding="utf-8").splitlines()[1:]:
        marked = line.split("\t")[1]
        text, spans = "", set()
        for piece in marked.split("["):
            noun, closed, rest = piece.partition("]")
            if closed:
                spans.add((len(text), len(text) + len(noun)))
            text += noun + rest
        collected = {(t.idx, t.idx + len(t)) for t in nlp(text) if t.tag_ in COMMON_NOUNS}
        right, predicted, true = (
            right + len(collected & spans),
            predicted + len(collected),
            true + len(spans),
        )
    return 2 * right / (predicted + true)


def train(
    nlp: Language,
    sentences: Sequence[Sentence],
    dev: Sequence[Sentence],
    options: argparse.Namespace,
) -> None:
    """Trains with Adam, a rate that falls to zero, and keeps the mean of the weights."""
    rng = random.Random(options.seed)
    known = examples(nlp, sentences)
    tagger = nlp.get_pipe("tagger")
    tagger.initialize(lambda: known, nlp=nlp)  # type: ignore[attr-defined]
    adam = Adam(0.003, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0, use_averages=True)
    total, step, begun = options.epochs * len(known) / options.batch, 0, time.time()
    for epoch in range(options.epochs):
        rng.shuffle(known)
        for start in range(0, len(known), options.batch):
            adam.learn_rate = 0.003 * max(0.01, 1 - step / total) * min(1.0, (step + 1) / 100)
            batch = known[start : start + options.batch]
            tagger.update(batch, sgd=adam, drop=options.dropout)  # type: ignore[attr-defined]
            step += 1
        with nlp.use_params(adam.averages), nlp.select_pipes(enable="tagger"):
            noun, all_tags = f1(nlp, dev)
            by_hand = f1_by_hand(nlp)
        with nlp.use_params(adam.averages):
            save(nlp, options)
        print(f"epoch {epoch + 1}: dev F1 {noun:.4f}, accuracy {all_tags:.4f}, captions "
              f"{by_hand:.4f}, {time.time() - begun:.0f} s", flush=True)  # fmt: skip


def save(nlp: Language, options: argparse.Namespace) -> None:
    """Writes the pipeline without the words of its training text."""
    slim = build(options.width, options.depth)
    slim.vocab.lookups = nlp.vocab.lookups
    for name in ("tagger", "lemmatizer"):
        content = nlp.get_pipe(name).to_bytes(exclude=["vocab"])  # type: ignore[attr-defined]
        slim.get_pipe(name).from_bytes(content)  # type: ignore[attr-defined]
    for label in nlp.get_pipe("tagger").labels:  # type: ignore[attr-defined]
        slim.vocab.strings.add(label)
    options.out.mkdir(parents=True, exist_ok=True)
    slim.to_disk(options.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the treebank's columns")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--batch", type=int, default=48, help="sentences in a step")
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--captions", type=int, default=4000, help="sentences of the grammar")
    options = parser.parse_args()
    fix_random_seed(options.seed)
    treebank = read_treebank(options.data / "train.tsv.gz")
    made = captions(options.captions, options.seed)
    sentences = treebank + lower_cased(treebank, 0.1, options.seed) + made
    counts = Counter(word.lower() for words, _, _ in treebank + made for word in words)
    frequent = frozenset(word for word, count in counts.items() if count >= COMMON)
    classes = word_classes(frequent)
    print(len(sentences), "sentences,", len(classes), "words known by their class", flush=True)
    nlp = build(options.width, options.depth)
    set_norms(nlp, classes)
    nlp.get_pipe("lemmatizer").initialize()  # type: ignore[attr-defined]
    train(nlp, sentences, read_treebank(options.data / "dev.tsv.gz"), options)


if __name__ == "__main__":
    main()
