"""Masking of tokens, for a network to guess them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxtickets.models.position_dropout import key_words, position_bits

IGNORED = -100
"""The label of a place that is not guessed; torch's convention."""


@dataclasses.dataclass(frozen=True)
class MaskTokens:
    """Masks tokens as BERT does: `augment` of a data set for masked language modelling.

    Each token but special ones and padding is chosen with probability `share`. Of the chosen, 80 %
    become the mask token, 10 % a random token, 10 % stay. Draws belong to (example, token): they do
    not depend on how far texts are padded.

    Args:
      mask_token: the number of the mask token (103 in BERT's uncased vocabulary, 50264 in
        RoBERTa's).
      vocabulary: how many tokens there are.
      special: tokens that are never chosen: start, separator, padding.
      share: of the tokens to guess, in (0, 1).

    Raises:
      ValueError: a number out of range.

    References:
      Devlin et al. 2019, arXiv:1810.04805, section 3.1 and appendix A.1.

    Differs:
      Every token is chosen on its own, as in Hugging Face's collator; BERT's code chooses a fixed
      number of a text's.

    >>> hide = MaskTokens(mask_token=3, vocabulary=20, special=(0, 1, 2))
    >>> ids = jnp.array([[1, 7, 8, 9, 10, 11, 12, 13, 2, 0]])
    >>> masked = hide(jax.random.key(3), {"input_ids": ids, "attention_mask": ids != 0})
    >>> masked["input_ids"][0].tolist(), masked["labels"][0].tolist()
    ([1, 7, 3, 9, 10, 3, 12, 13, 2, 0], [-100, -100, 8, -100, -100, 11, -100, -100, -100, -100])
    """

    mask_token: int
    vocabulary: int
    special: tuple[int, ...] = ()
    share: float = 0.15

    def __post_init__(self) -> None:
        if isinstance(self.special, str) or not isinstance(self.special, Sequence):
            raise ValueError(f"MaskTokens: special is a tuple of tokens; got {self.special!r}.")
        object.__setattr__(self, "special", tuple(self.special))
        if (
            isinstance(self.vocabulary, bool)
            or not isinstance(self.vocabulary, int)
            or not 1 <= self.vocabulary < 2**31
        ):
            raise ValueError(
                "MaskTokens: vocabulary is how many tokens there are, an integer of at least 1;"
                f" got {self.vocabulary!r}."
            )
        numbers = (self.mask_token, *self.special)
        if any(
            isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < self.vocabulary
            for n in numbers
        ):
            raise ValueError(
                f"MaskTokens: tokens are integers from 0 to {self.vocabulary - 1}; got"
                f" {list(numbers)}."
            )
        if (
            isinstance(self.share, bool)
            or not isinstance(self.share, int | float)
            or not 0 < self.share < 1
        ):
            raise ValueError(f"MaskTokens: share must be in (0, 1), got {self.share!r}.")

    def __call__(self, key: jax.Array, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Masks tokens of a batch and adds "labels", the tokens to be guessed.

        Maps `{"input_ids", "attention_mask", ...}`, integers [B, T], to the same with "labels":
        int32 [B, T], the token where one is to be guessed, elsewhere -100.
        """
        ids, words = x["input_ids"], key_words(key)
        share_bits, fate_bits, token_bits = (
            position_bits(words, site, ids.shape, (1,)) for site in range(3)
        )
        ordinary = x["attention_mask"] != 0
        for token in self.special:
            ordinary &= ids != token
        guessed = ordinary & (share_bits < jnp.uint32(round(self.share * 2**32)))
        masked = fate_bits < jnp.uint32(round(0.8 * 2**32))
        stays = fate_bits >= jnp.uint32(round(0.9 * 2**32))
        random = (token_bits % jnp.uint32(self.vocabulary)).astype(ids.dtype)
        shown = jnp.where(
            masked, jnp.asarray(self.mask_token, ids.dtype), jnp.where(stays, ids, random)
        )
        labels = jnp.where(guessed, ids.astype(jnp.int32), IGNORED)
        return {**x, "input_ids": jnp.where(guessed, shown, ids), "labels": labels}
