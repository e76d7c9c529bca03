"""The first tokens of a decode rank, and their comparison with the whole model."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from workers.model.seeds import token_ids
from workers.model.setup import Decoder, Prompt
from workers.model.whole import WholeModel
from workers.protocol import TokenCheck


class _Computed(NamedTuple):
    request: int
    prompt: Prompt
    kv: torch.Tensor
    logits: torch.Tensor


class TokenChecks:
    """Computes first tokens from KV that has arrived, and later compares them with the whole model.

    The comparison takes longer than the tokens. So it is made once, after the run, and not beside it.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._model = WholeModel(decoder)
        self._computed: list[_Computed] = []

    def prepare(self) -> None:
        """Make the whole model now, and use it once."""
        self._model.prefill(torch.zeros(2, dtype=torch.int64))

    def first_token(self, request: int, prompt: Prompt, kv: torch.Tensor) -> None:
        """Compute the token after a prompt from its `kv` (layers, 2, kv heads, tokens, d).

        A decode worker begins with the last token of the prompt, whose KV has arrived with the others.
        """
        last = int(token_ids(request, prompt)[-1])
        logits = self._model.next_logits(last, prompt.tokens - 1, kv)
        self._computed.append(_Computed(request, prompt, kv, logits))

    def results(self, of_prefill: Mapping[int, torch.Tensor]) -> tuple[TokenCheck, ...]:
        """Compare each token, its logits and the KV it was computed from with those of the whole model.

        `of_prefill` has, by request, the logits that its prefill unit has computed for the same token.
        """
        return tuple(self._compared(done, of_prefill[done.request]) for done in self._computed)

    def _compared(self, done: _Computed, of_prefill: torch.Tensor) -> TokenCheck:
        right = self._model.prefill(token_ids(done.request, done.prompt))
        token, expected = int(done.logits.argmax()), int(right.logits.argmax())
        return TokenCheck(
            request=done.request,
            token=token,
            expected_token=expected,
            gap=float(right.logits[expected] - right.logits[token]),
            logit_error=max(_largest_difference(each, right.logits) for each in (done.logits, of_prefill)),
            kv_error=_largest_difference(done.kv, right.kv),
            kv_bytes=done.kv.nbytes,
        )


def _largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two elements; infinite if an element is not a number."""
    difference = (one.to(torch.float32) - other.to(torch.float32)).abs()
    return float(difference.nan_to_num(nan=torch.inf).max())
