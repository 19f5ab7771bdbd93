"""Whether a row's pieces, tokenized one by one, are the tokens of its whole text; if not, where.

Prompt and answer are tokenized apart so that the answer's first token is what the model is asked for. At inference the
prompt stands alone too, so a difference is no mistake by itself: it says that a server which is given prompt and
answer as one text (to score it, or to go on from it) sees other tokens than training did.

Conversations are the other way round: tokenized as one text, whose beginning a server sends. A token that reaches from
there into the answer is trained, and never asked for.

Not here: how often to look, since it costs a second tokenization.
"""

from itertools import accumulate

from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.pieces import Example, Note, Text

KIND = "have other tokens where their pieces meet than their whole text has"
_SHOWN = 20
UNASKED = (
    "have other tokens before an answer than a server's prompt has alone: white space at the prompt's end and at the "
    "answer's beginning may be one token, which is trained and never asked for"
)
# Characters: a text of megabytes would take minutes more, and shows nothing that shorter rows do not.
_LONGEST = 100_000


def seam(encoder: Encoder, example: Example) -> Note | None:
    """The first difference of a row; None if there is none, if a token is between its pieces, or if it is long."""
    if not isinstance(example, Text) or any(piece.starts or piece.ends for piece in example.pieces):
        return None
    texts = [piece.text for piece in example.pieces]
    if sum(map(len, texts)) > _LONGEST:
        return None
    *apart, whole = encoder.ids([*texts, "".join(texts)])
    at = 0
    for number, ids in enumerate(apart):
        if whole[at : at + len(ids)] != ids:
            return Note("PiecesDiffer", KIND, _told(encoder, texts, number, ids=ids, found=whole[at:]))
        at += len(ids)
    return None


def unasked(encoder: Encoder, example: Example) -> Note | None:
    """The first prompt of a conversation whose tokens are not those that the whole text begins with."""
    if not isinstance(example, Text) or not example.prompts or len(example.pieces[0].text) > _LONGEST:
        return None
    text = example.pieces[0].text
    looked_at = [
        end for end, sum_ in zip(example.prompts, accumulate(example.prompts), strict=True) if sum_ <= _LONGEST
    ]
    whole, *sent = encoder.ids([text, *(text[:end] for end in looked_at)])
    for end, ids in zip(looked_at, sent, strict=True):
        if whole[: len(ids)] != ids:
            place = f"{text[max(0, end - _SHOWN) : end]!r} and {text[end : end + _SHOWN]!r}"
            return Note("OtherPrompt", UNASKED, f"{place}: {_apart(encoder, ids, whole)}")
    return None


def _apart(encoder: Encoder, sent: list[int], whole: list[int]) -> str:
    """The first tokens that differ."""
    same = next(i for i, (one, two) in enumerate(zip(sent, [*whole, None], strict=False)) if one != two)
    names = encoder.tokenizer.convert_ids_to_tokens
    return f"{names(sent[same : same + 1])} at a prompt's end, {names(whole[same : same + 1])} in the row"


def _told(encoder: Encoder, texts: list[str], number: int, *, ids: list[int], found: list[int]) -> str:
    """Which pieces meet there, and the first tokens that differ."""
    same = next((i for i, (one, two) in enumerate(zip(ids, found, strict=False)) if one != two), len(found))
    # A piece whose last tokens differ has been merged with the next; one whose first differ, with the one before.
    left = max(number - 1, 0) if same == 0 else number
    before, after = texts[left][-_SHOWN:], "".join(texts[left + 1 :])[:_SHOWN]
    names = encoder.tokenizer.convert_ids_to_tokens
    return f"{before!r} and {after!r}: {names(ids[same : same + 1])} apart, {names(found[same : same + 1])} as one text"
