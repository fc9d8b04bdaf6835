"""From a record of ``articles`` to a version whose text is tokenised, or to the reason why it cannot be used.

The text that stands for an article is its title, abstract and body, a line each
(:func:`encoders.text.article_text`). The language is no part of it: a model that knows languages
reads them from the words, and a wrong tag would move the vector. It goes with the metadata.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from consumers.articles_backlog import Version
from consumers.editors_log import editor_of
from contract.errors import BadRecord
from contract.messages import Article, decode_article
from contract.records import ArticleMeta
from encoders.articles import hash64
from encoders.text import TextEncoder, article_text
from streams.record import Record

TOKENISING = Counter("stoppress_encoder_tokenising_seconds_total", "Seconds spent on making tokens of texts")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")
_NO_TOKENS: NDArray[np.int32] = np.zeros(0, np.int32)


def read(record: Record) -> tuple[Version, str] | None:
    """Return the version in a record and its text, None for a withdrawal. Raises :class:`BadRecord`."""
    article = decode_article(record.key(), record.value())
    if article is None:
        return None
    if article.language and not _LANGUAGE.fullmatch(article.language):
        raise BadRecord(
            "wrong_language",
            f"Article: language {article.language[:40]!r} is no BCP 47 tag; send one as 'en' or 'pt-BR', or none",
        )
    text = article_text(article.title, article.abstract, article.body)
    if not text:
        raise BadRecord("empty_text", "Article: title, abstract and body hold only markup; give at least a title")
    return _version(record, article, hash64(text)), text


def _version(record: Record, article: Article, text_hash: int) -> Version:
    meta = ArticleMeta(
        article.category, article.tags, article.entities, article.authors, article.source, article.language,
        article.placement, record.offset(), text_hash,
    )  # fmt: skip
    return Version(
        article.article_id, record.partition(), record.offset(), record.timestamp()[1], article.published_at,
        article.expires_at or 0, meta, text_hash, _NO_TOKENS, time.monotonic(), editor_of(record, article.attributes),
    )  # fmt: skip


def tokenise(encoder: TextEncoder, texts: Sequence[str]) -> list[NDArray[np.int32] | BadRecord]:
    """Return the tokens of each text; where they cannot be made, why."""
    began = time.perf_counter()
    try:
        made: list[NDArray[np.int32] | BadRecord] = [*encoder.tokenise(texts)]
    except Exception:  # noqa: BLE001  tokenizers raises nothing narrower; one text must not take the others with it
        made = [_tokenise_alone(encoder, text) for text in texts]
    TOKENISING.inc(time.perf_counter() - began)
    return made


def _tokenise_alone(encoder: TextEncoder, text: str) -> NDArray[np.int32] | BadRecord:
    try:
        return encoder.tokenise([text])[0]
    except Exception as error:  # noqa: BLE001  as above
        return BadRecord("not_embeddable", f"the tokenizer fails on this text: {error}; send it with other words")
