"""What makes the job adverts look like files that people have: markup, spaces, bullets, capitals, spellings.

Belongs here: changing how something is written, never what is said. Does not belong here: the words (`adverts_words`).
"""

import numpy as np

BULLETS = ("- ", "• ", "* ")


def laid_out(sentences: list[str], heading: str, rng: np.random.Generator) -> str:
    """An advert's sentences as one text: mostly a paragraph, else with lines, a heading, or a list without full stops.

    Args:
        sentences: opening first, closing last.
        heading: what stands above a list.
        rng: source of chance.
    """
    shape = rng.random()
    if shape < 0.13:
        bullet = BULLETS[rng.integers(len(BULLETS))]
        points = [bullet + sentence.removesuffix(".") for sentence in sentences[1:-1]]
        return "\n".join([sentences[0], heading, *points, sentences[-1]])
    if shape < 0.2:
        middle = len(sentences) // 2
        return " ".join(sentences[:middle]) + "\n\n" + " ".join(sentences[middle:])
    if shape < 0.25:
        return "\n".join(sentences)
    return " ".join(sentences)


def shouted(sentences: list[str], rng: np.random.Generator) -> list[str]:
    """The sentences, one of them in capitals in one advert of fifteen."""
    if rng.random() >= 1 / 15:
        return sentences
    loud = int(rng.integers(len(sentences)))
    return [sentence.upper() if i == loud else sentence for i, sentence in enumerate(sentences)]


def marked_up(text: str, rng: np.random.Generator) -> str:
    """The text as a web page or a form left it, in about one advert of five."""
    fault = rng.random()
    if fault < 0.05:
        return text.replace("&", "&amp;").replace("'", "&#39;")
    if fault < 0.08:
        return text.replace(" a ", "&nbsp;a ", 2)
    if fault < 0.10:
        return text.replace("\n", "<br>\n") if "\n" in text else f"<p>{text}</p>"
    if fault < 0.17:
        return text.replace(". ", ".  ")
    if fault < 0.20:
        return f" {text}\n"
    return text


def spelled(name: str, rng: np.random.Generator) -> str:
    """A name as it stands in a column that people filled in: mostly right, sometimes in other case or with blanks."""
    fault = rng.random()
    if fault < 0.04:
        return name + " "
    if fault < 0.06:
        return name.upper()
    if fault < 0.08:
        return name.lower()
    if fault < 0.09:
        return "  " + name
    return name
