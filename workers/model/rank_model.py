"""A rank's side of real layers: what it computes, what its transfers carry, which tokens come out."""

import threading
from collections.abc import Callable, Iterable, Sequence

import torch

from controller.flow import Stage, Transfer
from workers.model.checks import TokenChecks
from workers.model.kv import KvStore
from workers.model.manifest import KvPiece, piece_of, pieces_of
from workers.model.parts import WIRE
from workers.model.prefill import PrefillWork
from workers.model.setup import RealModel
from workers.model.weights import Weights
from workers.plan import BatchPlan, RequestPlan
from workers.protocol import Evidence, TokenCheck


class RankModel:
    """What rank `rank` has of `model`. Thread-safe: lanes load and keep KV while the rank computes.

    A rank learns what a transfer carries from the plan (`planned`), or from the order to send it (`sends`).
    KV that arrives is kept until it is wanted, because it may be here before its plan. `leave` is called with
    what this rank leaves to the checks of a decode rank.
    """

    def __init__(self, model: RealModel, rank: int, leave: Callable[[Evidence], None]) -> None:
        self._model = model
        self._rank = rank
        self._leave = leave
        self._weights = Weights(model.decoder, model.shards[rank])
        self._store = KvStore(model.decoder, model.shards[rank])
        self._pieces: dict[str, KvPiece] = {}
        self._delivered: dict[int, list[str]] = {}
        self._arrived: dict[str, torch.Tensor] = {}
        self._checks = TokenChecks(model.decoder)
        self._lock = threading.Lock()
        self._worker = next((worker for worker in model.workers if rank in worker), ())
        self._to_join: list[int] = []
        # Before the clock starts: random numbers take longer than a layer.
        if not self._worker:
            self._weights.prepare()
        elif rank == self._worker[0]:
            self._checks.prepare()

    # --- what transfers carry -------------------------------------------------------------------

    def planned(self, plan: BatchPlan) -> None:
        """Note the transfers of a batch that this rank sends or receives. Raises `WrongSize`."""
        with self._lock:
            for transfer, piece in pieces_of(plan, self._rank, self._model):
                self._pieces[transfer.id] = piece
                if transfer.stage is Stage.P2D and transfer.dst == self._rank:
                    self._delivered.setdefault(piece.request, []).append(transfer.id)

    def sends(self, transfers: Iterable[Transfer], requests: Iterable[RequestPlan]) -> None:
        """Note transfers that this rank is told to send for `requests` of other units. Raises `WrongSize`."""
        by_number = {request.request: request for request in requests}
        with self._lock:
            for transfer in transfers:
                if transfer.request is None:  # background traffic, which carries no KV
                    continue
                self._pieces[transfer.id] = piece_of(transfer, by_number[transfer.request], self._model)

    def load(self, transfer: Transfer) -> torch.Tensor:
        """The bytes of a transfer that this rank sends."""
        with self._lock:
            piece = self._pieces.pop(transfer.id)
        if transfer.stage is Stage.KV_REUSE:
            return self._store.packed_blocks(piece, self._model.prompts[piece.request])
        return self._store.packed(piece)

    def keep(self, flow: str, content: torch.Tensor) -> None:
        """Keep the bytes of a transfer that has arrived."""
        with self._lock:
            self._arrived[flow] = content

    def take(self, flows: Iterable[str]) -> None:
        """Put KV that has arrived where it belongs."""
        for flow in flows:
            with self._lock:
                piece, content = self._pieces.pop(flow), self._arrived.pop(flow)
            self._store.unpack(piece, content)

    # --- work -----------------------------------------------------------------------------------

    def work(self, plan: BatchPlan) -> PrefillWork:
        """Begin a batch."""
        return PrefillWork(plan, self._rank, self._model, self._weights, self._store)

    def ended(self, work: PrefillWork) -> None:
        """A batch is over on this rank."""
        for request, logits in work.ended():
            self._leave(self._evidence(request.request, request.decode_rank, logits, logits=True))

    def first_token(self, request: RequestPlan) -> None:
        """Compute the first token of a request, all of whose KV for this decode rank has arrived.

        If a worker has several ranks, each has some of the heads. All of them but the first leave their KV to
        the first one, which computes the token after the run (`checks`).
        """
        number, prompt = request.request, self._model.prompts[request.request]
        with self._lock:
            flows = self._delivered.pop(number)
        self._store.open(number, prompt.tokens)
        self.take(flows)
        if self._rank != self._worker[0]:
            kv = self._store.all_of(number)
            self._leave(self._evidence(number, self._worker[0], kv, logits=False))
        elif len(self._worker) == 1:
            self._checks.first_token(number, prompt, self._store.all_of(number))
        else:
            with self._lock:
                self._to_join.append(number)

    def checks(self, evidence: Sequence[Evidence]) -> tuple[TokenCheck, ...]:
        """Compare the first tokens of this rank with the whole model, with what was left to it."""
        left = {(each.request, each.src): each.content for each in evidence if not each.logits}
        for number in self._to_join:
            own = self._store.all_of(number)
            others = [_tensor(left[number, rank], WIRE).view(own.shape) for rank in self._worker[1:]]
            kv = torch.cat([own, *others], dim=2)
            self._checks.first_token(number, self._model.prompts[number], kv)
        self._to_join.clear()
        logits = {each.request: _tensor(each.content, torch.float32) for each in evidence if each.logits}
        return self._checks.results(logits)

    def _evidence(self, request: int, to: int, content: torch.Tensor, *, logits: bool) -> Evidence:
        raw = content.contiguous().view(torch.uint8).numpy().tobytes()
        return Evidence(request=request, src=self._rank, to=to, logits=logits, content=raw)


def _tensor(content: bytes, kind: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=kind)
