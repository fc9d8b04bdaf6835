"""The proof that an exported graph gives the torch model's vectors, on texts of every awkward kind."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contract.errors import StoppressError
from encoders.manifest import Parity

Precision = Literal["fp32", "fp16"]
LEAST_COSINE: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999}

_ENGLISH = """
    the a of in after over council minister storm harbour election budget striker hospital court river vote museum
    says warns opens closes delays wins loses rejects approves unexpectedly quarter-final 2,400 £3.5bn 17% U.S. e.g.
    internationalisation @desk #breaking don't mother-in-law COVID-19 www.example.org/a?b=c
"""
_CHINESE = "新闻记者报道城市经济增长天气台风足球比赛医院学校选举政府市场价格今天昨日北京上海，。《》"
_ARABIC = "أعلنت الحكومة اليوم عن خطة جديدة لإصلاح التعليم بعد الانتخابات في المدينة القديمة قرب البحر، وقال الوزير"
_OTHER = """
    выборы в столице 東京の天気 서울 경제 성장 Ελλάδα ακρόπολη हिन्दी समाचार ภาษาไทย
    naïve café Zürich Łódź smörgåsbord İstanbul
"""
_EMOJI = "😀 🚀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇧🇷 ❤️ ⚽ ☔ 1️⃣"
_CONTROL = "\0\1\7\b\v\f\x1b\x1f\x7f\x85\xad\u200b\u200e\u202e\ufeff\ufffd\U0010ffff"
_SINGLE = (
    "", " ", "\n\t", "a", ".", "…", "[CLS] [SEP] [MASK] [PAD] [UNK]", "<p>only <b>markup</b></p>",
    "x" * 99, "x" * 101, "x" * 5000, " " * 5000 + "late", "0" * 400, "!" * 600,
    "e\u0301" * 300, "\u0301" * 50, "ﬁ ﬀ ﷺ Ⅷ ²", "ẞß ŉ ǆ", "\u2028\u2029", "'\"`´’“”",
)  # fmt: skip


class ParityFailed(StoppressError):
    """The exported graph does not give the torch model's vectors; nothing was written."""


def parity_texts() -> list[str]:
    """The same 230 texts every time: each script short, medium and beyond the longest that a model reads."""
    draw = random.Random(20)
    lengths = [1, 2, 3, 5, 8, 12, 18, 25, 40, 60, 90, 130, 180, 250, 500]
    english, arabic, emoji = _ENGLISH.split(), _ARABIC.split(), _EMOJI.split()
    mixed = [*english, *_CHINESE, *arabic, *_OTHER.split(), *emoji]
    texts = list(_SINGLE)
    for length in lengths * 2:
        texts += [
            " ".join(draw.choices(english, k=length)),
            " ".join(draw.choices(english, k=length)).title() + "?",
            "".join(draw.choices(_CHINESE, k=length)),
            " ".join(draw.choices(arabic, k=length)),
            draw.choice(["", " "]).join(draw.choices(emoji, k=length)),
            " ".join(draw.choices(mixed, k=length)),
            "".join(word + draw.choice(_CONTROL) for word in draw.choices(mixed, k=length)),
        ]
    return texts


def compare(reference: NDArray[np.float32], exported: NDArray[np.float32], least_cosine: float) -> Parity:
    """Compare [n, dims] with [n, dims] row by row.

    Raises :class:`ParityFailed` where the worst cosine is below ``least_cosine`` or not a number.
    """
    a, b = reference.astype(np.float64), exported.astype(np.float64)
    cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    worst = float(cosines.min())
    if not worst >= least_cosine:
        raise ParityFailed(
            f"the exported graph differs from the torch model: worst cosine {worst:.6f} over {len(cosines)} texts, "
            f"{least_cosine} is needed; nothing was written: give another model, or with --precision fp16 try fp32"
        )
    return Parity(texts=len(cosines), worst_cosine=worst, mean_cosine=float(cosines.mean()))
