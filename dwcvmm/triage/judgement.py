"""What the differences of a kept divergence suggest, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from dwcvmm.element.divergence import Cause
from dwcvmm.faults.model import SHORTEST_BURST, parse
from dwcvmm.results.divergencefile import RUNNING, KeptDivergence
from dwcvmm.triage.differences import Difference, PageDifference
from dwcvmm.triage.places import Place

MOST_NAMED = 4  # registers, words or pages that get a sentence each
MOST_BITS = 8  # that are listed
T = TypeVar("T", Difference, PageDifference)
OTHER = {"A": "B", "B": "A"}


def judge(
    kept: KeptDivergence, places: Sequence[Place], registers: Sequence[Difference], pages: Sequence[PageDifference]
) -> list[str]:
    """Sentences: the cause first, and last what follows from the differences."""
    return [
        _cause(kept),
        *_ends(kept, places),
        *_listed(registers, _register, "registers"),
        *_listed(pages, _page, "pages"),
        *_pattern(kept, registers, pages),
        *_verdict(kept),
    ]


def bits_text(bits: Sequence[int]) -> str:
    """Text such as "bit 3", "bits 0, 4 to 6", "31 bits from 2 to 63". Ranges have at least SHORTEST_BURST bits."""
    if len(bits) == 1:
        return f"bit {bits[0]}"
    if len(bits) > MOST_BITS and len(bits) != bits[-1] - bits[0] + 1:
        return f"{len(bits)} bits from {bits[0]} to {bits[-1]}"
    pieces: list[list[int]] = []
    for bit in bits:
        if pieces and bit == pieces[-1][-1] + 1:
            pieces[-1].append(bit)
        else:
            pieces.append([bit])
    texts = [[f"{p[0]} to {p[-1]}"] if len(p) >= SHORTEST_BURST else map(str, p) for p in pieces]
    return "bits " + ", ".join(text for piece in texts for text in piece)


def _which(difference: Difference) -> str:
    names = sorted(set(difference.bit_names), key=difference.bit_names.index)
    return bits_text(difference.bits) + (f" ({', '.join(names)})" if names else "")


def _cause(kept: KeptDivergence) -> str:
    if kept.fault is not None:
        fault = parse(kept.fault)
        hit = " and ".join(f"replica {'AB'[index]} ({('e1', 'e2')[index]})" for index in fault.run.replicas)
        where = hit or (f"whatever runs on CPU {fault.cpu}" if fault.cpu is not None else "the checkpoint")
        return f"The cause is known: the fault {kept.fault} was injected into {where}."
    if "replay" in kept.detail:
        replay = kept.detail["replay"]
        return f"The cause is not known: the replay {replay}. It may have read time."
    if kept.cause == Cause.CHECKPOINT:
        return "The run stopped because the checkpoint is damaged: it could not be told what to go back to."
    if kept.cause == Cause.ALIGNMENT:
        return "No fault was injected, and the two ends of the runs could not be brought together."
    return "No cause is known: no fault was injected, and nothing of the guest or the host accounts for it."


def _ends(kept: KeptDivergence, places: Sequence[Place]) -> list[str]:
    sentences: list[str] = []
    a, b = (run.exit for run in kept.runs)
    if "exit" in kept.groups:
        same = (a.reason, a.port, a.gpa, a.size, a.count, a.is_write) == (
            *(b.reason, b.port, b.gpa, b.size, b.count, b.is_write),
        )
        what = "They ended in the same way with different data" if same else "They ended in different ways"
        sentences.append(f"{what}: A by {places[0].exit}; B by {places[1].exit}.")
    if "hang" in kept.groups:
        running = [place.replica for place in places if place.exit == RUNNING]
        who = f"Replica {running[0]}" if running else "One of them, whose exit below is an older one,"
        sentences.append(f"{who} had not ended long after the other one had.")
    if places[0].rip != places[1].rip:
        sentences.append(f"They stand at different instructions: A at {_at(places[0])}, B at {_at(places[1])}.")
    return sentences


def _at(place: Place) -> str:
    return f"{place.rip} ({place.symbol})" if place.symbol else place.rip


def _register(difference: Difference) -> str:
    name = difference.name.upper() if difference.name.isalnum() else difference.name
    if difference.changed_by in OTHER:
        return f"Replica {difference.changed_by} alone changed {_which(difference)} of {name}."
    return f"Both changed {name}, and differently: they differ in {_which(difference)}."


def _page(page: PageDifference) -> str:
    words = f"{len(page.words)} word{'s' if len(page.words) > 1 else ''}"
    if len(page.words) == 1:
        words = f"{bits_text(page.words[0].bits)} of the word at {page.words[0].name}"
    if not page.logged:
        return f"Page {page.gpa} is in no dirty log, so the guest did not write it, and yet it differs: {words}."
    if page.changed_by in OTHER:
        return f"Replica {page.changed_by} alone changed page {page.gpa}: {words}."
    return f"Both wrote page {page.gpa}, and differently: {words}."


def _listed(each: Sequence[T], sentence: Callable[[T], str], what: str) -> list[str]:
    if len(each) <= MOST_NAMED:
        return [sentence(one) for one in each]
    return [f"{len(each)} {what} differ: {_shares(each)}."]


def _shares(each: Iterable[Difference | PageDifference]) -> str:
    by = [one.changed_by for one in each]
    shares = [f"{by.count(name)} changed by {name} alone" for name in OTHER if name in by]
    return ", ".join([*shares, *([f"{by.count('both')} by both"] if "both" in by else [])])


def _pattern(kept: KeptDivergence, registers: Sequence[Difference], pages: Sequence[PageDifference]) -> list[str]:
    all_of_it = [*registers, *(word for page in pages for word in page.words)]
    if not all_of_it:
        return ["No register and no page differs."]
    sentences: list[str] = []
    if sum(len(one.bits) for one in all_of_it) == 1 and kept.pages_differ <= len(kept.pages):
        sentences.append("A single bit is all that differs, as a transient upset leaves it.")
    at_rest = [page for page in pages if not page.logged]
    if at_rest:
        sentences.append(
            "A page that nobody wrote and that differs is an upset of memory at rest; the rest may follow from it."
        )
    by = {one.changed_by for one in all_of_it}
    if len(by) == 1 and by <= set(OTHER):
        (name,) = by
        sentences.append(
            f"In all that differs replica {OTHER[name]} is as before: either {name} changed what it should not have, "
            f"or {OTHER[name]} did not what it should have."
        )
    elif by == {"both"} and kept.wrong is None:
        sentences.append("Both changed all that differs, so this comparison cannot tell which of them is wrong.")
    elif set(OTHER) <= by:
        sentences.append("Each replica changed something that the other one left as it was.")
    return sentences


def _verdict(kept: KeptDivergence) -> list[str]:
    if kept.wrong is None:
        return []
    again = "The element, run again, was committed as"
    if len(kept.wrong) == 1:
        return [f"{again} {OTHER[kept.wrong[0]]} had shown it: replica {kept.wrong[0]} was wrong."]
    return [f"{again} {'neither' if kept.wrong else 'both'} had shown it."]
