"""A rank's side of real layers: what it computes, what its transfers carry, which tokens come out."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch

from controller.flow import Stage, Transfer
from workers.model.checks import TokenChecks
from workers.model.kv import KvStore
from workers.model.manifest import KvPiece, piece_of, pieces_of
from workers.model.parts import WIRE
from workers.model.prefill import PrefillWork
from workers.model.setup import Prompt, RealModel
from workers.model.weights import Weights
from workers.plan import BatchPlan, RequestPlan
from workers.protocol import Evidence, TokenCheck
from workers.streams import Stream, settle

_CPU = torch.device("cpu")


class RankModel:
    """What rank `rank` has of `model`, its KV in pages on `device`. Thread-safe: lanes load and keep KV while
    the rank computes.

    A rank learns what a transfer carries from the plan (`planned`), or from the order to send it (`sends`).
    A plan also gives the requests that work on this rank their pages. They are given back when the rank has
    computed and sent all of a request's KV, or has computed its first token. KV that arrives before its plan
    is kept aside. `leave` is called with what this rank leaves to the checks of a decode rank.
    """

    def __init__(
        self,
        model: RealModel,
        rank: int,
        leave: Callable[[Evidence], None],
        device: torch.device = _CPU,
    ) -> None:
        self._model = model
        self._rank = rank
        self._leave = leave
        self._device = device
        self._stream = Stream(device)
        self._weights = Weights(model.decoder, model.shards[rank])
        self._store = KvStore(
            model.decoder,
            model.shards[rank],
            pages=model.pages,
            block_tokens=model.block_tokens,
            device=device,
        )
        self._pieces: dict[str, KvPiece] = {}
        self._unsent: Counter[int] = Counter()
        self._computed: set[int] = set()
        self._early: dict[str, torch.Tensor] = {}
        self._checks = TokenChecks(model.decoder)
        self._lock = threading.Lock()
        self._worker = next((worker for worker in model.workers if rank in worker), ())
        self._to_join: dict[int, torch.Tensor] = {}
        # Before the clock starts: random numbers take longer than a layer.
        if not self._worker:
            self._weights.prepare()
        elif rank == self._worker[0]:
            self._checks.prepare()

    @property
    def kv(self) -> KvStore:
        """Its KV."""
        return self._store

    # --- what transfers carry -------------------------------------------------------------------

    def planned(self, plan: BatchPlan) -> None:
        """Give the requests of a batch their pages, and note the transfers that this rank sends or receives.

        Raises `WrongSize`, or `OutOfPages`.
        """
        for request in plan.requests:
            if self._rank in request.replica and not request.earlier_tokens:
                self._store.open(request.request, self._prompt(request.request), _cached(request))
            elif self._rank in request.decode_ranks and request.request not in self._store:
                self._store.open(request.request, self._prompt(request.request))
        early: list[tuple[KvPiece, torch.Tensor]] = []
        with self._lock:
            for transfer, piece in pieces_of(plan, self._rank, self._model):
                if transfer.id in self._early:
                    early.append((piece, self._early.pop(transfer.id)))
                    continue
                self._pieces[transfer.id] = piece
                if transfer.stage is Stage.P2D and transfer.src == self._rank:
                    self._unsent[piece.request] += 1
        with self._stream.here():
            for piece, content in early:
                self._store.unpack(piece, content)

    def sends(self, transfers: Iterable[Transfer], requests: Iterable[RequestPlan]) -> None:
        """Note transfers that this rank is told to send for `requests` of other units. Raises `WrongSize`."""
        by_number = {request.request: request for request in requests}
        with self._lock:
            for transfer in transfers:
                if transfer.request is None:  # background traffic, which carries no KV
                    continue
                self._pieces[transfer.id] = piece_of(transfer, by_number[transfer.request], self._model)

    def load(self, transfer: Transfer) -> torch.Tensor:
        """The bytes of a transfer that this rank sends, gathered on its device."""
        with self._lock:
            piece = self._pieces.pop(transfer.id)
        if transfer.stage is Stage.KV_REUSE:
            return self._store.packed_blocks(piece, self._prompt(piece.request))
        content = self._store.packed(piece)
        settle(self._device)  # nobody may get the pages before they are read
        with self._lock:
            self._unsent[piece.request] -= 1
        self._close_if_over(piece.request)
        return content

    def keep(self, flow: str, content: torch.Tensor) -> None:
        """Put the bytes of a transfer that has arrived (on the device) into the pages of its request."""
        with self._lock:
            piece = self._pieces.pop(flow, None)
            if piece is None:
                self._early[flow] = content
        if piece is not None:
            self._store.unpack(piece, content)
            settle(self._device)  # it has arrived when it is there

    # --- work -----------------------------------------------------------------------------------

    def work(self, plan: BatchPlan) -> PrefillWork:
        """Begin a batch."""
        return PrefillWork(plan, self._rank, self._model, self._weights, self._store)

    def ended(self, work: PrefillWork) -> None:
        """A batch is over on this rank."""
        for request, logits in work.ended():
            self._leave(self._evidence(request.request, request.decode_rank, logits, logits=True))
        with self._lock:
            self._computed.update(work.over)
        for number in work.over:
            self._close_if_over(number)

    def _close_if_over(self, request: int) -> None:
        """Give the pages of a request back if all of its KV is computed and sent."""
        with self._lock:
            if request not in self._computed or self._unsent[request]:
                return
            self._computed.discard(request)
            del self._unsent[request]
        self._store.close(request)

    def first_token(self, request: RequestPlan) -> None:
        """Compute the first token of a request, all of whose KV for this decode rank has arrived.

        If a worker has several ranks, each has some of the heads. All of them but the first leave their KV to
        the first one, which computes the token after the run (`checks`).
        """
        number, prompt = request.request, self._prompt(request.request)
        with self._stream.here():
            kv = self._store.all_of(number, prompt.tokens)
        self._store.close(number)
        if self._rank != self._worker[0]:
            self._leave(self._evidence(number, self._worker[0], kv, logits=False))
        elif len(self._worker) == 1:
            self._checks.first_token(number, prompt, kv)
        else:
            with self._lock:
                self._to_join[number] = kv

    def checks(self, evidence: Sequence[Evidence]) -> tuple[TokenCheck, ...]:
        """Compare the first tokens of this rank with the whole model, with what was left to it."""
        left = {(each.request, each.src): each.content for each in evidence if not each.logits}
        for number, own in self._to_join.items():
            others = [_tensor(left[number, rank], WIRE).view(own.shape) for rank in self._worker[1:]]
            kv = torch.cat([own, *others], dim=2)
            self._checks.first_token(number, self._prompt(number), kv)
        self._to_join.clear()
        logits = {each.request: _tensor(each.content, torch.float32) for each in evidence if each.logits}
        return self._checks.results(logits)

    def _prompt(self, request: int) -> Prompt:
        return self._model.prompts[request]

    def _evidence(self, request: int, to: int, content: torch.Tensor, *, logits: bool) -> Evidence:
        raw = content.contiguous().view(torch.uint8).numpy().tobytes()
        return Evidence(request=request, src=self._rank, to=to, logits=logits, content=raw)


def _cached(request: RequestPlan) -> tuple[tuple[int, int], ...]:
    """The spans of a prompt, each (begin, end), that its replica has cached: those that it does not fetch."""
    found, begin = [], 0
    for first, end in sorted(span for fetch in request.fetched for span in fetch.spans):
        found.append((begin, first))
        begin = end
    return *found, (begin, request.local_tokens + request.remote_tokens)


def _tensor(content: bytes, kind: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=kind)
