import dataclasses
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from hsae_dagster.cli.run import columns
from hsae_dagster.core.hypothesis import Evidence, Example, Twin
from hsae_dagster.core.inference.cluster_robust import NO_EFFECT_ESTIMATED
from hsae_dagster.core.inference.joint_fit import Fit
from hsae_dagster.core.inference.partial_effects import Flag
from hsae_dagster.core.inference.plan import Look
from hsae_dagster.core.selection.stability import NegativeControl
from hsae_dagster.report.cards import card_markdown, escape_markdown, facts, hypotheses_table
from hsae_dagster.report.content import SplitCount, report_tables
from hsae_dagster.report.page import render_report
from hsae_dagster.report.prose import headline
from hsae_dagster.stages.holdout import no_fidelity
from hsae_dagster_tests.report.make_content import (
    OUTCOMES,
    make_content,
    make_effect,
    make_fidelity,
    make_hypotheses,
    make_hypothesis,
)

EVIL = (
    "<script>alert(1)</script> ![x](javascript:alert(2)) <img src=x onerror=y> \"'> $\\frac{a}{b}$ | "
    "{{ 7*7 }} \x00\ud800"
)
OWN_PICTURE = re.compile("data:image/png;base64,[A-Za-z0-9+/=]+")
VOID = {"meta", "link", "br", "hr", "img", "input", "circle", "line", "path", "use", "rect"}


class Page(HTMLParser):
    """What a browser would build of a page: tags with attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        # A picture that lies in the page itself is none that a text could have brought.
        own = tag == "img" and OWN_PICTURE.fullmatch(dict(attrs).get("src") or "")
        self.tags.append(("own picture" if own else tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def evil_content(task="regression"):
    bad = make_hypothesis(0, task=task, claim=EVIL, reason=EVIL, text=EVIL, flags=(Flag("collinear", EVIL),))
    bad = dataclasses.replace(bad, hypothesis_id=EVIL, concept_id=EVIL, sae_id=EVIL, title=EVIL)
    fits = (Fit("embeddings", "R2", 0.4, 0.3, 0.5, "trained"), Fit(EVIL, "R2", 0.2, 0.1, 0.3, EVIL))
    return make_content(
        task,
        (bad,),
        dataset=EVIL,
        description=EVIL,
        outcome=EVIL,
        cluster=EVIL,
        dropped={EVIL: 3},
        unreadable=((0, EVIL, 1, EVIL),),
        fits=fits,
        settings={EVIL: [EVIL, {"a": EVIL}], "inference": None},
        versions={EVIL: EVIL},
        run_id=EVIL,
    )


@pytest.fixture(scope="module")
def html():
    return render_report(make_content())


@pytest.mark.parametrize("task", OUTCOMES)
def test_markup_in_texts_shows_as_text(task):
    page = Page(render_report(evil_content(task)))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "object", "a:href", "link", "form", "foreignobject", "image"}
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script> ![x](javascript:alert(2))" in "".join(page.text)
    assert "{{ 7*7 }}" in "".join(page.text)


def test_the_page_asks_for_nothing_and_runs_nothing(html):
    page = Page(html)
    for tag, attrs in page.tags:
        if tag == "own picture":
            assert attrs["alt"] == "", "the words beside it say the same"
            continue
        for name in ("href", "src", "xlink:href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith("#"), attrs
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    assert not page.named("script")
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_the_page_can_be_read_without_seeing_it(html):
    page = Page(html)
    assert not page.open
    assert page.named("html")[0]["lang"] == "en"
    assert [tag for tag, _ in page.tags].count("h1") == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels)), "no level of headings is left out"
    for svg in page.named("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-label"])
    assert len(page.named("table")) == len(page.named("caption"))
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.named("th"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for a in page.named("a")]
    assert links[0] == "main" and set(links) <= set(ids)
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= set(ids)


def test_the_same_content_gives_the_same_bytes_and_no_time(html):
    assert render_report(make_content()) == html
    assert not re.search(r"\b\d\d:\d\d\b|\b20\d\d-\d\d-\d\d\b", html)
    assert len(html.encode()) < 1_000_000


def test_the_summary_says_what_was_found(html):
    text = " ".join("".join(Page(html).text).replace("\u00a0", " ").split())
    assert (
        "15 different findings confirmed: 20 claims were tested on 3,049 texts (152 film clusters) whose outcomes no "
        "earlier step had read. " in text
    )
    assert "Together the claims predict 41 % of what the embeddings predict" in text
    assert "associated with a lower mean rating: on average 1.10 below texts without this" in text
    assert "Holm's correction" in text and "materialize the partition movie_reviews in Dagster" in text
    assert not re.search(r"\b(causes|caused by|leads to|increases|decreases|effect of)\b", text)


def test_claims_that_overlap_are_not_counted_as_different_findings():
    text = " ".join(render_report(make_content(different=13)).split())
    assert "13 different findings confirmed, in 15 claims of which some overlap: 20 claims were tested" in text


def test_matched_terms_are_marked(html):
    marks = re.findall(r"<mark>([^<]+)</mark>", html)
    assert len(marks) > 100
    assert {"screenplay", "kiss"} <= {mark.lower() for mark in marks}


def test_nan_is_never_shown():
    blank = make_hypothesis(0, effect=NO_EFFECT_ESTIMATED, badge="invalid", fidelity=make_fidelity(0.0))
    blank = dataclasses.replace(
        blank, selection_score=math.nan, train_separation=math.nan, evidence=Evidence((), (), ())
    )
    fits = tuple(Fit(name, "R2", *[math.nan] * 3, "trained") for name in ("embeddings", "concepts"))
    for task in OUTCOMES:
        content = make_content(task, (blank,), outcome_mean=math.nan, floor=(math.nan, math.nan), fits=fits)
        page = "".join(Page(render_report(content)).text)
        for written in (page, card_markdown(blank, content), str(hypotheses_table(content))):
            assert not re.search(r"\bnan\b|\binf\b", written, re.IGNORECASE)
            assert "not estimable" in written


def test_a_report_without_hypotheses_or_fits_says_so():
    content = make_content(hypotheses=(), fits=(), splits=(), versions={}, settings={}, unreadable=(), dropped={})
    text = "".join(Page(render_report(content)).text)
    assert "Nothing found. No claim about the training texts" in text
    assert hypotheses_table(content) == []


def test_none_confirmed_is_said_and_no_strongest_listed():
    content = make_content(hypotheses=(make_hypothesis(0, badge="not supported"),))
    text = "".join(Page(render_report(content)).text)
    assert "No finding: 1 claim was tested on" in text and "it is not confirmed." in text
    assert "The strongest" not in text


@pytest.mark.parametrize("task", OUTCOMES)
def test_a_card_in_markdown_is_inert(task):
    content = evil_content(task)
    card = card_markdown(content.hypotheses[0], content)
    assert "<" not in card and not re.search(r"(?<!\\)!\[", card) and not re.search(r"\]\((?!\\)", card)
    assert not re.search(r"(?<!\\)\$", card)
    inside = [line for line in card.splitlines() if line.startswith("| ")]
    assert inside and all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in inside)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("![x](javascript:y)", r"\!\[x\]\(javascript\:y\)"),
        ("<b> & *c*", r"&lt;b&gt; &amp; \*c\*"),
        ("# a\n- b | c", r"\# a - b \| c"),
        ("- a", r"\- a"),
        ("https://a.b www.c.d e@f.g", "https\\:\u200b//a.b www\u200b.c.d e@\u200bf.g"),
        ("1. a", r"1\. a"),
        ("0.86 on 5", "0.86 on 5"),
        ("$x$ `y` ~z~ \\", r"\$x\$ \`y\` \~z\~ \\"),
    ],
)
def test_escape_markdown(text, escaped):
    assert escape_markdown(text) == escaped


def test_a_card_holds_the_whole_case():
    content = make_content()
    card = card_markdown(content.hypotheses[2], content)
    for part in (
        "### Says “bad”, “tender”, ",
        "**confirmed**: Holm-corrected",
        r"**+0.81 mean rating \[0.66, 0.96\]**",
        "| Tested on | 3,049 texts, 152 film clusters |",
        r"| Holds for | 402 \(13 %\) |",
        "| Corrected for all tests (Holm) | p = 0.001",
        "| Source | a neuron of the autoencoder |",
        r"71 % of the texts that it holds for activate the neuron \(precision\); it holds for 54 % of the texts",
        r"activate the neuron \(recall\); r 0.60 |",
        "| Neuron found again | in 2 of 3 other training seeds |",
        "**Doubts**\n\n- separation and partial effect have opposite signs",
        "**Texts that it holds for**",
        "**Near misses",
        "**Against it",
        "`000000000002`",
    ):
        assert part in card


def test_the_table_has_one_plain_row_per_hypothesis():
    content = make_content("pairwise", (make_hypothesis(0, task="pairwise", effect=make_effect(0.08, 0.04)),))
    assert hypotheses_table(content) == [
        {
            "no.": "1",
            "claim": "says “portrait”, “lacks”, “slow”, “worst” or “music”",
            "effect": "58 % [54, 62]",
            "p": "< 0.001",
            "holds for": "13 %",
            "badge": "confirmed",
        }
    ]
    evil = hypotheses_table(evil_content())[0]["claim"]
    assert "\x00" not in evil and evil.encode()


def controlled_content():
    """One confirmed and one hypothesis whose effect changes sign, and a declared control whose name is markup."""
    made = make_hypotheses(20)[:2]
    plain = make_effect(0.21, 0.1)
    shown = [
        dataclasses.replace(h, test=dataclasses.replace(h.test, plain=plain, adjusted=h.test.separation)) for h in made
    ]
    shown[1] = dataclasses.replace(shown[1], badge="suggestive", rule="controls")
    settings = {"columns": {"text": "text", "controls": ["<b>year"]}}
    return make_content(hypotheses=tuple(shown), settings=settings)


def test_declared_controls_decide_and_the_plain_effect_stands_beside():
    content = controlled_content()
    for row in hypotheses_table(content):
        assert row["without controls"] == "+0.21 [0.11, 0.31]"
    text = " ".join("".join(Page(render_report(content)).text).replace("\u00a0", " ").split())
    assert (
        "Controls (<b>year): effects, intervals, p-values, q and verdicts are with these and text length held" in text
    )
    assert "; without controls +0.21 [0.11, 0.31]." in text
    assert "Effect [95 %]Without controlsp (Holm)" in text
    assert text.count("+0.21 [0.11, 0.31]") == 5  # the strongest, two rows, two cards
    assert text.count(", controls held constant") == 3
    assert "by least squares" in text
    card = card_markdown(content.hypotheses[0], content)
    assert r"| Without controls | +0.21 \[0.11, 0.31\] |" in card
    plain = make_content()
    assert "without controls" not in hypotheses_table(plain)[0]
    card = card_markdown(plain.hypotheses[0], plain)
    assert "With text length held constant" in card and "ithout controls" not in card
    assert "Controls (" not in render_report(plain)


def test_a_verdict_that_p_does_not_explain_says_its_rule():
    content = controlled_content()
    assert [row["why"] for row in hypotheses_table(content)] == ["", "changes sign under controls"]
    assert "suggestive (changes sign under controls)" in "".join(Page(render_report(content)).text)
    assert "why" not in hypotheses_table(make_content())[0]


def test_rows_that_share_a_text_are_observations():
    splits = (SplitCount("train", 5080, 5080, 253), SplitCount("holdout", 3049, 2104, 152))
    content = make_content(splits=splits)
    text = " ".join("".join(Page(render_report(content)).text).replace("\u00a0", " ").split())
    assert "were tested on 3,049 observations of 2,104 texts (152 film clusters)" in text
    assert "average 0.61 over the held-out observations" in text
    assert "| Tested on | 3,049 observations, 152 film clusters |" in card_markdown(content.hypotheses[0], content)
    pairs = make_content("pairwise", splits=splits)
    assert "3,049 pairs" in card_markdown(pairs.hypotheses[0], pairs)


def test_rows_left_out_are_said_by_what_they_are():
    page = render_report(make_content(dropped={"repeated row": 76}))
    assert "repeating a row of the same id: 76" in Page(page).text[-1] + page
    assert "repeated row" not in page


def test_quotes_are_no_support_and_show_what_makes_the_claim_hold():
    content = make_content()
    text = "".join(Page(render_report(content)).text)
    assert "Texts that it holds for" in text and "may lie on either side of the average" in text
    assert "For it" not in text


def test_near_misses_show_the_sentence_that_activates_the_neuron():
    miss = Example("t1", "I waited. The film was long. I left.", 1.0, 2.0, unit="The film was long.")
    held = Example("t2", "So dull. A very dull plot.", 1.0, 2.0, ("dull",), "A very dull plot.")
    hypothesis = dataclasses.replace(make_hypothesis(0), evidence=Evidence((held,), (miss,), ()))
    content = make_content(hypotheses=(hypothesis,))
    assert re.findall(r"<mark>([^<]+)</mark>", render_report(content)) == ["dull", "dull", "The film was long"]
    card = card_markdown(hypothesis, content)
    assert "“So **dull**. A very **dull** plot.”" in card
    assert "“I waited. **The film was long**. I left.”" in card
    evidence = report_tables(content)["evidence"]
    assert evidence["because"].to_list() == [["dull"], []]
    assert evidence["unit"].to_list() == ["A very dull plot.", "The film was long."]


@pytest.mark.parametrize(
    ("changes", "source", "coverage"),
    [
        ({"source": "yours", "sae_id": ""}, "you, in dataset.yaml", "no neuron"),
        ({"made_from": "style", "sae_id": ""}, "the list of style cues", "no neuron"),
        ({"made_from": "terms"}, "words of the training texts associated with the outcome", "71 % of the texts"),
        ({"made_from": ""}, "a language model that read texts of a neuron", "71 % of the texts"),
        ({"fidelity": no_fidelity()}, "a neuron of the autoencoder", "not estimable"),
    ],
)
def test_a_card_says_where_a_claim_comes_from_and_how_much_of_its_neuron_it_says(changes, source, coverage):
    hypothesis = dataclasses.replace(make_hypothesis(0), **changes)
    told = dict(facts(hypothesis, make_content(hypotheses=(hypothesis,))))
    assert told["Source"] == source
    assert told["How much of its neuron it says"].startswith(coverage)
    assert ("Neuron learned" in told) == bool(hypothesis.sae_id)
    assert not [name for name in told if "idelity" in name]


def test_power_is_no_lower_limit():
    hypothesis = dataclasses.replace(make_hypothesis(0), detectable=0.51)
    card = card_markdown(hypothesis, make_content(hypotheses=(hypothesis,)))
    assert "an effect of ±0.51 would have been found with 80 % probability, a smaller one with less" in card


@pytest.mark.parametrize(
    ("runs", "any_found", "said"),
    [
        (20, 0, "(0 of 20 permutations)."),
        (20, 2, "(2 of 20 permutations; chance alone gives up to 3 at a family-wise error of 5 %)."),
        (
            20,
            5,
            "chance alone gives at most 3 at a family-wise error of 5 %, so the test may be too lib",
        ),
        (5, 1, "chance alone gives up to 1 at"),
    ],
)
def test_false_confirmations_are_held_against_chance(runs, any_found, said):
    control = NegativeControl("permuted labels, own concepts", runs, 20 * runs, any_found, any_found, 0.1)
    text = "".join(Page(render_report(make_content(negative_controls=(control,)))).text).replace("\u00a0", " ")
    assert said in text


def test_the_headline_says_when_plain_words_predict_more():
    content = make_content()
    assert headline(content).endswith(
        "Plain words predict more than the claims do (R² 0.40 against 0.17): the claims leave something out."
    )
    without = tuple(f for f in content.fits if f.name != "words (TF-IDF)")
    assert "Plain words" not in headline(make_content(fits=without))
    worse = tuple(dataclasses.replace(f, value=0.1) if f.name == "words (TF-IDF)" else f for f in content.fits)
    assert "Plain words" not in headline(make_content(fits=worse))


def test_the_headline_claims_no_more_than_was_checked():
    made = make_hypotheses(20)
    unchecked = tuple(dataclasses.replace(h, badge="confirmed, judge unchecked") for h in made[:3])
    said = headline(make_content(hypotheses=unchecked))
    assert said.startswith("No finding: 3 claims were tested on ")
    assert "; the test of 3 holds by a judge that no labels of people have checked; none of them is confirmed" in said
    again = Look(number=2, plan="p", frozen_before=True, earlier={})
    later = headline(dataclasses.replace(make_content(), look=again))
    assert "at the second look at them" in later and "no earlier step had read" not in later


def test_what_the_user_brings_is_no_finding_of_ours():
    found, own = make_hypothesis(0), dataclasses.replace(make_hypothesis(1), source="yours")
    assert headline(make_content(hypotheses=(found, own))).startswith("1 finding and 1 claim of your own confirmed: 2")
    assert headline(make_content(hypotheses=(own,))).startswith("1 claim of your own confirmed: 1 claim was tested")
    assert headline(make_content(hypotheses=(found, found))).startswith("2 different findings confirmed: 2 claims were")


@pytest.mark.parametrize("task", OUTCOMES)
def test_a_report_of_nothing_found_is_whole(task):
    content = make_content(task, ())
    text = " ".join("".join(Page(render_report(content)).text).split())
    assert "Nothing found." in text and "There is nothing to show: no claim was tested." in text
    assert "Together the claims" not in text and "Plain words predict more" not in text
    assert all(frame.height == 0 for name, frame in report_tables(content).items() if name in ("evidence", "subgroups"))
    assert columns(hypotheses_table(content)) == ["(nothing found: no claim was tested)"]


def test_words_that_need_a_gloss_are_not_on_the_page(html):
    text = " ".join("".join(Page(html).text).split())
    assert not re.findall(
        r"\b(?:fires?|firing|silent|unguided|guided|lexicons?|rungs?|turns round)\b", text.replace("(“fire”)", "")
    )
    assert not re.findall(r"natural precision|[Ff]idelity F1", text)


def test_doubts_follow_the_content():
    few = dataclasses.replace(make_hypothesis(0).test, n_clusters=12, n=3000)
    hypothesis = dataclasses.replace(make_hypothesis(0), test=few)
    doubtful = "".join(Page(render_report(make_content(hypotheses=(hypothesis,), cluster=None))).text)
    for part in ("only 12 clusters", "No cluster column is declared", "Up to 49 held-out observations"):
        assert part in doubtful
    copies = (SplitCount("half A", 390, 390, 17), SplitCount("half B", 391, 391, 19))
    copied = make_content(hypotheses=(hypothesis,), cluster=None, splits=copies)
    told = " ".join("".join(Page(render_report(copied)).text).split())
    assert "781 texts (36 clusters of equal or nearly equal texts)" in told
    assert "nearly equal texts are kept together, in 36" in told
    assert "every text counts as independent" not in told and "every text is its own" not in told
    sound = "".join(Page(render_report(make_content(hypotheses=make_hypotheses(2)))).text)
    assert "only 12 clusters" not in sound and "No cluster column" not in sound


def test_published_figures_are_marked_and_only_there_where_declared() -> None:
    assert "Published, not measured here" not in render_report(make_content())
    page = render_report(make_content(settings={"published": "AUC 0.695,\n14 of 20."}))
    assert "Published, not measured here: AUC 0.695, 14 of 20." in page


def test_of_two_halves_every_claim_says_where_it_was_found_and_what_tested_it():
    first, second, third = (make_hypothesis(k) for k in range(3))
    other = dataclasses.replace(second, half="b", claim="says “the same”", badge="not supported", p_holm=0.7)
    twice = dataclasses.replace(first, half="a", twin=Twin.of(other, 0.93, agrees=True))
    against = dataclasses.replace(
        second, half="b", twin=Twin.of(dataclasses.replace(first, half="a"), -0.9, agrees=False)
    )
    own = dataclasses.replace(third, source="yours", badge="suggestive")
    splits = (SplitCount("half A", 1500, 1500, 80), SplitCount("half B", 1549, 1540, 72))
    content = make_content(hypotheses=(twice, against, own), splits=splits, dropped={})
    told = dict(facts(twice, content))
    assert told["Tested on"].startswith("half B: 3,049")
    assert told["Found"] == "twice, in both halves"
    assert "“says “the same”” (φ 0.93), found in half B" in told["The other test, on half A"]
    assert "Holm p = 0.70; not supported" in told["The other test, on half A"]
    assert dict(facts(against, content))["Found"] == "in both halves, with opposite directions"
    assert "Found" not in dict(facts(own, content))
    assert [row["found in"] for row in hypotheses_table(content)] == ["A and B", "B", "neither"]
    said = headline(content)
    assert "3,049 observations of 3,040 texts (152 film clusters), each on the half that it was not found in" in said
    assert "1 of them was found in both halves" in said
    text = " ".join(" ".join(Page(render_report(content)).text).split())
    assert "the more significant of the two tests" in text
    assert "Plain Bonferroni would keep 14 of 5." in text
    assert "Each half has half of that chance" in text
    assert "(the holdout)" not in text
    assert "Found in half" in text
    # A corpus with a holdout has none of this.
    plain = make_content()
    assert not plain.halves
    assert "found in" not in hypotheses_table(plain)[0]
    assert not {"Found", "Found in"} & set(dict(facts(plain.hypotheses[0], plain)))


def test_a_place_in_selection_is_not_called_by_the_number_of_a_finding() -> None:
    alone = dataclasses.replace(make_hypothesis(0), rank=6, made_from="")
    together = dataclasses.replace(alone, hypothesis_id="h" * 12, made_from="terms")
    page = "".join(Page(render_report(make_content(hypotheses=(alone, together)))).text)
    assert re.search(r"Place in selection\s*7", page)
    assert re.search(r"Place among the claims chosen together\s*7", page)
    assert "Rank in selection" not in page
