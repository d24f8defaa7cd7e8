"""Nouns whose singular the rules of English miss, or that have none."""

# as a caption says it -> its lemma
IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth",
    "geese": "goose", "mice": "mouse", "oxen": "ox", "dice": "die", "axes": "axe", "vases": "vase",
    "bases": "base", "cookies": "cookie", "smoothies": "smoothie", "cacti": "cactus", "octopi": "octopus",
    "fungi": "fungus", "radii": "radius", "hippopotami": "hippopotamus", "alumni": "alumnus",
    "phenomena": "phenomenon", "criteria": "criterion", "ottomans": "ottoman", "shelfs": "shelf",
    "sushis": "sushi", "tvs": "tv", "pies": "pie", "ties": "tie", "movies": "movie",
}  # fmt: skip
# of two parts or a mass, without a singular: the lemma is the word itself
PLURAL_ONLY = frozenset(
    "scissors sunglasses eyeglasses jeans trousers pants underpants sweatpants shorts pajamas pyjamas "
    "binoculars tweezers pliers goggles tongs leggings tights overalls headphones earphones clothes "
    "clippers shears knickers boxers slacks khakis dungarees series species sweets groceries "
    "suds stairs fireworks".split()
)


def lemma(word: str, otherwise: str) -> str:
    """The lemma of a noun in lower case: as listed here, else `otherwise`.

    >>> lemma("scissors", "scissor"), lemma("cookies", "cooky"), lemma("apples", "apple")
    ('scissors', 'cookie', 'apple')
    """
    return word if word in PLURAL_ONLY else IRREGULAR.get(word, otherwise)
