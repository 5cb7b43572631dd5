"""Writes captions in other words than QaTa-COV19's, for the benchmark of zone labels.

`paraphrase` varies words, order and form; `original` writes the irregular forms that the first release of the captions
has. Both are told the zones and draw from the generator they are given. Neither was fitted to the parser.
"""

from textray.records import LEVELS, SIDES, ZONE_NAMES
from textray.text.zones import NUMBERS

FAMILIAR = {
    "upper": ("upper", "upper", "apical"),
    "middle": ("middle", "middle", "mid"),
    "lower": ("lower", "lower", "basal"),
}
"""Words for the levels that the rule parser knows."""
VARIED = {
    "upper": (*FAMILIAR["upper"], "superior"),
    "middle": (*FAMILIAR["middle"], "central"),
    "lower": (*FAMILIAR["lower"], "inferior"),
}
"""The same and one that it does not know for each level."""
NOUNS = (("zone", "zones"), ("field", "fields"), ("lung zone", "lung zones"), ("area", "areas"), ("third", "thirds"))
MISSPELT = 0.04
"""Share of original captions with a misspelt word, as the authors report of theirs."""


def _pick(rng, options):
    return options[int(rng.integers(len(options)))]


def _levels(zones):
    named = dict(zip(ZONE_NAMES, zones.present, strict=True))
    return {side: [level for level in LEVELS if named[f"{side} {level}"]] for side in SIDES}


def _join(rng, words):
    if len(words) == 1:
        return words[0]
    return _pick(rng, (" ".join(words), " and ".join((", ".join(words[:-1]), words[-1])), ", ".join(words)))


def _side(rng, side, levels, words):
    """One side's zones."""
    if len(levels) == 3 and rng.random() < 0.5:
        return _pick(
            rng, (f"the whole {side} lung", f"all of the {side} lung", f"entire {side} lung", f"all {side} lung")
        )
    named = _join(rng, [_pick(rng, words[level]) for level in levels])
    noun = _pick(rng, NOUNS)[len(levels) > 1]
    forms = (
        f"{named} {side} lung",
        f"{side} {named} {noun}",
        f"{named} {noun} of the {side} lung",
        f"{side} lung ({named})",
        f"in the {named} {noun} on the {side}",
    )
    return _pick(rng, forms)


def _both(rng, levels, words):
    """The same zones on both sides."""
    if len(levels) == 3 and rng.random() < 0.5:
        return _pick(rng, ("both lungs", "the whole of both lungs", "all zones of both lungs", "both lungs entirely"))
    if levels == ["lower"] and rng.random() < 0.4:
        return _pick(rng, ("bibasal", "both bases", "both lung bases"))
    if levels == ["upper"] and rng.random() < 0.4:
        return _pick(rng, ("biapical", "both apices"))
    named, plural = _join(rng, [_pick(rng, words[level]) for level in levels]), _pick(rng, NOUNS)[1]
    return _pick(rng, (f"{named} {plural} of both lungs", f"both lungs ({named})", f"bilateral {named} {plural}"))


def paraphrase(zones, rng, words=VARIED):
    """A caption in other words: synonyms, digits, either order of the sides, both lungs at once."""
    levels = _levels(zones)
    sides = [side for side in SIDES if levels[side]]
    count, status = sum(zones.present), "bilateral" if len(sides) == 2 else "unilateral"
    if len(sides) == 2 and levels["left"] == levels["right"] and rng.random() < 0.6:
        place = _both(rng, levels["left"], words)
    else:
        if rng.random() < 0.5:
            sides.reverse()
        parts = [_side(rng, side, levels[side], words) for side in sides]
        place = _pick(rng, (" and ", " plus ", ", ", " as well as ")).join(parts)
    start = _pick(
        rng, (f"{status} pulmonary infection", f"{status} infection", f"{status} pneumonia", f"{status} opacities")
    )
    number = _pick(rng, (NUMBERS[count - 1], str(count)))
    areas = _pick(rng, ("infected", "affected")) + (" area" if count == 1 else " areas")
    text = f"{start}, {number} {areas}, {place}" + _pick(rng, (".", ""))
    return text if rng.random() < 0.5 else text[0].upper() + text[1:]


def _misspell(rng, text):
    """Drop, double or swap one letter of one word of the place."""
    head, _, place = text.rpartition(", ")
    words = place.split(" ")
    at = int(rng.integers(len(words)))
    word = words[at]
    letter = int(rng.integers(len(word)))
    pair = word[letter : letter + 2]
    changed = _pick(
        rng, (word[:letter] + word[letter + 1 :], word[:letter] + word[letter : letter + 1] + word[letter:])
    )
    if len(pair) == 2 and rng.random() < 1 / 3:
        changed = word[:letter] + pair[::-1] + word[letter + 2 :]
    return f"{head}, {' '.join((*words[:at], changed, *words[at + 1 :]))}"


def original(zones, rng):
    """A caption in the irregular forms of the first release: "all", capitals, counts of lesions, slips of the pen."""
    levels = _levels(zones)
    sides = [side for side in SIDES if levels[side]]
    whole = rng.random() < 0.7
    place = " and ".join(
        f"{'all' if len(levels[side]) == 3 and whole else ' '.join(levels[side])} {side} lung" for side in sides
    )
    count = sum(zones.present)
    stated = count if rng.random() < 0.9 else int(rng.integers(len(sides), count + 1))
    status = "bilateral" if len(sides) == 2 else "unilateral"
    number = "sevral" if rng.random() < 0.0015 else NUMBERS[stated - 1]
    text = f"{status} pulmonary infection, {number} infected {'area' if stated == 1 else 'areas'}, {place}"
    if rng.random() < MISSPELT:
        text = _misspell(rng, text)
    if rng.random() < 0.8:
        text += "."
    return text if rng.random() < 0.3 else text[0].upper() + text[1:]
