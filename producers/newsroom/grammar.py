"""How an affair becomes headlines and paragraphs: developments, each with its forms.

A form is a text with slots. Besides the fields of a story line (``subject``, ``short``, ``place``,
``worry``, ``hope``, ``move``, ``scene``) there are ``org``, ``other``, ``person``, ``role``, ``tag``,
``quote``, ``day`` and numbers: ``few`` (a word), ``n``, ``big``, ``percent``, ``money``, ``score``,
``nth``, ``votes``. A capital letter at the slot's start asks for one in the text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from producers.newsroom.storylines import Storyline

DEVELOPMENTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "report": (0.34, ("{head}",)),
    "reaction": (
        0.14,
        (
            "{Org} hit back at critics of {subject}",
            "'{Quote}': {person} on {subject}",
            "{Org} and {other} trade blame over {subject}",
            "{Person} breaks silence on {subject}: '{quote}'",
            "Angry letters and applause after news of {subject}",
            "{Other} to demand answers about {subject}",
            "'{Quote}', says the {role} about {subject}",
            "{Place} reacts to {subject}: '{quote}'",
        ),
    ),
    "decision": (
        0.12,
        (
            "{Org} voted {votes} to {move}",
            "{Org} will not {move}",
            "{Subject}: decision to {move} due on {day}",
            "Plan to {move} divides {place}",
            "{Person} urges {org} to {move}",
            "{Percent} in {place} would {move}, survey on {subject} finds",
            "Should {org} {move}? {Place} decides on {day}",
        ),
    ),
    "setback": (
        0.11,
        (
            "{Org} warned that {worry}",
            "Setback for {subject} after only {few} weeks",
            "{Person} fears that {worry}",
            "{Subject}: fears grow that {worry}",
            "New doubts about {subject} after retreat of {other}",
            "Talks about {subject} stall after {n} minutes",
        ),
    ),
    "hope": (
        0.09,
        (
            "{Hope}: optimism at {org}",
            "{Person}: why {hope}",
            "Relief in {place}: {hope}",
            "After {few} difficult weeks, good news about {subject}",
            "A way out for {org}: how {hope}",
        ),
    ),
    "analysis": (
        0.10,
        (
            "Analysis: what {subject} says about {tag}",
            "Why {subject} matters far beyond {place}",
            "{Few} lessons from {subject}",
            "Explained: {subject} and the question of {tag}",
            "Comment: {subject} deserves better than slogans",
            "{Subject}: {few} questions, {few} answers",
            "Who wins and who loses by {subject}",
            "{Tag}: {place} shows how not to do it",
        ),
    ),
    "human": (
        0.07,
        (
            "{scene}",
            "Portrait: {scene}",
            "Long read: {scene}",
            "A visit to {place} on a {day}: {scene}",
        ),
    ),
    "figures": (
        0.07,
        (
            "{Subject} in figures: {n} meetings, {money}, one question",
            "{Big} people follow {subject} every day",
            "{Money} and counting: the bill for {subject}",
            "Donations for {short} in {place} reach {money}",
            "{Place} by numbers: {percent} for, {n} letters against {short}",
        ),
    ),
    "update": (
        0.06,
        (
            "{Subject}: what we know on {day}",
            "Turning point in {place}: new evidence about {short}",
            "{Person} steps down over {subject}",
            "{Person} takes charge of {subject}",
            "What happened this {day}: the latest on {subject}",
            "Week {n} of {subject}: still no end in sight",
        ),
    ),
}
"""Development -> its share of an affair's articles, and the forms of its headline."""

OPENINGS = (
    "{Fact}",
    "{Fact}",
    "In the affair of {subject}, there are fears at {org} that {worry}.",
    "{Person}, the {role}, hopes that {hope}.",
    "There is news from {place} about {subject}: {org} would like to {move}.",
    "The dispute over {subject} enters its {nth} week.",
    "For {org}, {subject} is no longer only a matter of {tag}.",
)
SENTENCES = (
    "{Fact}",
    "{Fact}",
    "{Fact}",
    '"{Quote}," said {person}, the {role}.',
    "{Org} would like to {move}; not so {other}.",
    "The worry at {other}: {worry}.",
    "If all goes well, {hope}.",
    "{Person}, the {role}, declined to comment.",
    "A decision about {short} is expected on {day}.",
    "{Place} talks of little else than {short}.",
)
QUOTES = (
    "we have run out of excuses", "this was never about money", "nobody asked us", "I would do it again",
    "patience is not a plan", "we were told a different story", "it is now or never", "somebody has to begin",
    "the figures speak for themselves", "I have slept badly for weeks", "we can't go on like this",
    "this is a good day", "the worst is behind us", "we owe people the truth", "no one is above the rules",
    "I won't apologise for trying", "that is only half of the story", "let the experts do their work",
    "we should have listened earlier", "a promise is a promise", "every day counts", "it could have been worse",
    "we are closer than ever", "small steps are steps too", "this is not the end", "I have nothing to hide",
    "they laughed at us at first", "there is no plan B", "ask me again in a year", "I believe it when I see it",
    "the neighbours will thank us", "it starts with a phone call", "we did our homework", "trust takes years to grow",
    "mistakes were made, also by me", "it's a question of respect", "nobody wanted it to end like this",
    "the door is still open", "we will be there to the last day", "I am tired but not discouraged",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FEW = ("three", "four", "five", "six", "seven", "eight", "nine")
ORDINALS = ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "twelfth")

_NAMES = tuple(DEVELOPMENTS)
_SHARES = tuple(share for share, _ in DEVELOPMENTS.values())
_ONCE = {"worry", "hope", "move"}
_SLOT = re.compile(r"\{(\w+)\}")


class Told:
    """One telling of a story line: the cast is drawn once, so title and text name the same people."""

    def __init__(self, line: Storyline, draw: random.Random) -> None:
        self._draw = draw
        self._line = line
        self.person = draw.choice(line.people)
        self.org, self.other = draw.sample(line.orgs, 2)
        self._quotes = draw.sample(QUOTES, 6)
        self._facts = draw.sample(line.facts, len(line.facts))
        self._told: set[str] = set()
        self._slots: dict[str, Callable[[], str]] = {
            "head": lambda: self.fill(draw.choice(line.heads)),
            "fact": lambda: self.fill(self._facts.pop()),
            "subject": lambda: line.subject,
            "short": lambda: line.short,
            "place": lambda: line.place,
            "worry": lambda: line.worry,
            "hope": lambda: line.hope,
            "move": lambda: line.move,
            "scene": lambda: line.scene,
            "person": lambda: self.person.name,
            "role": lambda: self.person.role,
            "org": lambda: self.org,
            "other": lambda: self.other,
            "tag": lambda: draw.choice(line.tags),
            "quote": lambda: self._quotes.pop(),
            "day": lambda: draw.choice(DAYS),
            "few": lambda: draw.choice(FEW),
            "nth": lambda: draw.choice(ORDINALS),
            "n": lambda: str(draw.randint(11, 48)),
            "big": lambda: f"{draw.randint(11, 480) * 100:,}",
            "percent": lambda: f"{draw.randint(11, 78)} per cent",
            "money": lambda: f"{draw.choice((draw.randint(11, 90), draw.randint(11, 90) * 10))} million crowns",
            "score": lambda: f"{draw.randint(1, 4)}-{draw.randint(0, 1)}",
            "votes": lambda: f"{draw.randint(11, 29)} to {draw.randint(3, 10)}",
        }

    def title(self) -> str:
        """A headline of one of the developments."""
        self._told.clear()
        development = self._draw.choices(_NAMES, _SHARES)[0]
        return capital(self.fill(self._draw.choice(DEVELOPMENTS[development][1])))

    def sentences(self, count: int, *, opening: bool) -> str:
        """``count`` sentences of text, fewer once everything has been told."""
        told: list[str] = []
        for place in range(count):
            forms = OPENINGS if opening and place == 0 else SENTENCES
            fresh = [form for form in forms if self._is_fresh(form)]
            if not fresh:
                break
            form = self._draw.choice(fresh)
            told.append(capital(self.fill(form)))
            self._told.add(form)
        return " ".join(told)

    def _is_fresh(self, form: str) -> bool:
        """Whether the form would say something that title and text have not said yet."""
        if "{Fact}" in form:
            return bool(self._facts)
        return form not in self._told and self._told.isdisjoint(slot.lower() for slot in _SLOT.findall(form))

    def fill(self, form: str) -> str:
        """The form with its slots filled, each by a draw of its own."""
        return _SLOT.sub(self._slot, form)

    def _slot(self, match: re.Match[str]) -> str:
        name = match[1]
        text = self._slots[name.lower()]()
        if name.lower() in _ONCE:
            self._told.add(name.lower())
        return capital(text) if name[0].isupper() else text


def capital(text: str) -> str:
    """The text with its first letter, not its later ones, made a capital."""
    return text[:1].upper() + text[1:]
