"""How the ranks of a prefill unit divide a model among them, and which divisions are possible."""

import contextlib
from collections.abc import Iterable, Iterator

import msgspec

from testbed.job import UnitShape
from testbed.models.mixers import mixers
from testbed.models.shape import ModelShape, Recurrent
from testbed.models.sizes import is_moe
from workers.plan import CollectiveKind


class PlacementError(ValueError):
    """The ranks cannot be placed. `key` is the scenario key to change, `reason` says why."""

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"{key}: {reason}")


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """`units` prefill units of `ranks` ranks each, as a scenario asks for them.

    A unit has `pp` pipeline stages. A sequence has `sp` parts. If `tp` is `None`, it is 1 for a mixture of
    experts, and otherwise all ranks that share a part of a sequence. If `ep` is `None`, it is a whole stage
    for a mixture of experts, and 1 for a dense model. `section` is where the scenario has the keys.
    """

    units: int
    ranks: int
    tp: int | None = None
    ep: int | None = None
    sp: int = 1
    pp: int = 1
    section: str = "units"


def checked_shape(pool: Pool, model: ModelShape, sequence: CollectiveKind) -> UnitShape:
    """The shape of a pool's units, with what was `None` decided.

    `sequence` says how the parts of a sequence attend to each other (`testbed.job.ServingOptions`). Raises
    `PlacementError` if the model or the number of ranks does not allow it.
    """
    for key, count in (("prefill_units", pool.units), ("ranks_per_unit", pool.ranks)):
        if count < 1:
            raise _refused(pool, key, f"must be at least 1, is {count}")
    per_stage = _stage_ranks(pool, model)
    with _null_is(
        pool, "tp", pool.tp, f"{_whose(pool)} {per_stage} ranks divided by {pool.section}.sp, {pool.sp}"
    ):
        tp = _tensor_parallel(pool, per_stage, model, sequence)
    with _null_is(pool, "ep", pool.ep, f"{_whose(pool)} {per_stage} ranks"):
        ep = _expert_parallel(pool, per_stage, model)
    if reason := _unparted(pool.sp, tp, sequence, model):
        raise _unfit(pool, "sp", reason, _fitting_parts(pool, per_stage, model, sequence))
    return UnitShape(tp=tp, sp=pool.sp, pp=pool.pp, ep=ep)


def check_decode_workers(ranks: int, tp: int, model: ModelShape) -> None:
    """Raise `PlacementError` unless `ranks` decode ranks can be workers of `tp` tensor-parallel ranks."""
    if ranks < 1:
        raise PlacementError("units.decode_ranks", f"must be at least 1, is {ranks}")
    if tp < 1:
        raise PlacementError("units.decode_tp", f"must be at least 1, is {tp}")
    reason = (
        f"{ranks} decode ranks do not divide into workers of {tp}" if ranks % tp else _undivided(model, tp)
    )
    if reason:
        fit = _in_words("decode_tp", _fitting(ranks, model))
        raise PlacementError("units.decode_tp", f"{reason}; {fit}")


def _refused(pool: Pool, key: str, reason: str) -> PlacementError:
    return PlacementError(f"{pool.section}.{key}", reason)


def _unfit(pool: Pool, key: str, reason: str, fit: Iterable[int]) -> PlacementError:
    """The refusal of a value that does not fit; `fit` are those that do."""
    return _refused(pool, key, f"{reason}; {_in_words(key, fit)}")


def _in_words(key: str, fit: Iterable[int]) -> str:
    return f"{key} can be {', '.join(map(str, fit))}"


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _whose(pool: Pool) -> str:
    return "a unit's" if pool.pp == 1 else "a stage's"


@contextlib.contextmanager
def _null_is(pool: Pool, key: str, given: int | None, meaning: str) -> Iterator[None]:
    """Say what null means in a refusal of `key` if it is not given: its value is then not the user's."""
    try:
        yield
    except PlacementError as error:
        if given is not None or error.key != f"{pool.section}.{key}":
            raise
        raise PlacementError(error.key, f"{error.reason}; it is null, which means {meaning}") from None


def _stage_ranks(pool: Pool, model: ModelShape) -> int:
    pp, ranks = pool.pp, pool.ranks
    if pp < 1:
        raise _refused(pool, "pp", f"must be at least 1, is {pp}")
    fit = [stages for stages in _divisors(ranks) if stages <= model.layers]
    if pp > model.layers:
        raise _unfit(pool, "pp", f"{model.name} has {model.layers} layers, too few for {pp} stages", fit)
    if ranks % pp:
        raise _unfit(pool, "pp", f"a unit's {ranks} ranks do not divide into {pp} stages", fit)
    return ranks // pp


def _tensor_parallel(pool: Pool, per_stage: int, model: ModelShape, sequence: CollectiveKind) -> int:
    sp, whose = pool.sp, _whose(pool)
    if sp < 1:
        raise _refused(pool, "sp", f"must be at least 1, is {sp}")
    if per_stage % sp:
        reason = f"{whose} {per_stage} ranks do not divide into {sp} parts"
        raise _unfit(pool, "sp", reason, _fitting_parts(pool, per_stage, model, sequence))
    tp = _tp_of(pool, per_stage // sp, model)
    if tp < 1:
        raise _refused(pool, "tp", f"must be at least 1, is {tp}")
    reason = _undivided(model, tp)
    if per_stage % (sp * tp):
        of = f"{tp}" if sp == 1 else f"{sp} parts x {tp}"
        reason = f"{whose} {per_stage} ranks do not divide into replicas of {of}"
    if reason:
        raise _unfit(pool, "tp", reason, _fitting(per_stage // sp, model))
    return tp


def _fitting(ranks: int, model: ModelShape) -> list[int]:
    """By how many of `ranks` ranks the heads of all layers can be divided."""
    return [tp for tp in _divisors(ranks) if not _undivided(model, tp)]


def _undivided(model: ModelShape, tp: int) -> str:
    """Why the heads of the layers do not divide by `tp`; empty if they do."""
    for mixer in mixers(model):
        if isinstance(mixer, Recurrent):
            if mixer.heads % tp:
                return f"the {mixer.heads} heads of {mixer.kind} of {model.name} do not divide by {tp}"
            continue
        if mixer.q_heads % tp:
            return f"the {mixer.q_heads} query heads of {model.name} do not divide by {tp}"
        # More ranks than KV heads have copies of them; the latent of MLA has no heads to divide.
        if mixer.latent is None and mixer.kv_heads % tp and tp % mixer.kv_heads:
            return f"the {mixer.kv_heads} KV heads of {model.name} do not divide by {tp}, nor it by them"
    return ""


def _tp_of(pool: Pool, per_part: int, model: ModelShape) -> int:
    """`pool.tp`, with `None` decided for `per_part` ranks that share a part of a sequence."""
    if pool.tp is not None:
        return pool.tp
    return 1 if is_moe(model) else per_part


def _fitting_parts(pool: Pool, per_stage: int, model: ModelShape, sequence: CollectiveKind) -> list[int]:
    """Into how many parts a sequence can be split, with the `tp` of `pool`; 1 if `tp` fits none."""
    fit = []
    for sp in _divisors(per_stage):
        tp = _tp_of(pool, per_stage // sp, model)
        divided = per_stage % (sp * tp) == 0 and not _undivided(model, tp)
        if divided and not _unparted(sp, tp, sequence, model):
            fit.append(sp)
    return fit or [1]


def _unparted(sp: int, tp: int, sequence: CollectiveKind, model: ModelShape) -> str:
    """Why the layers cannot work on `sp` parts of a sequence; empty if they can."""
    for mixer in mixers(model) if sp > 1 else ():
        if isinstance(mixer, Recurrent):
            return f"parts of a sequence are not modelled for the layers with {mixer.kind} of {model.name}"
        if sequence is CollectiveKind.ALL_TO_ALL and mixer.q_heads % (sp * tp):
            return f"the {mixer.q_heads} query heads of {model.name} do not divide by {sp} parts x {tp}"
    return ""


def _expert_parallel(pool: Pool, per_stage: int, model: ModelShape) -> int:
    ep, whose = pool.ep, _whose(pool)
    if ep is None:
        ep = per_stage if is_moe(model) else 1
    if ep < 1:
        raise _refused(pool, "ep", f"must be at least 1, is {ep}")
    if not is_moe(model):
        if ep > 1:
            raise _refused(pool, "ep", f"{model.name} has no experts, so ep must be 1")
        return ep
    reason = ""
    if per_stage % ep:
        reason = f"{whose} {per_stage} ranks do not divide into groups of {ep}"
    elif model.experts % ep:
        reason = f"the {model.experts} experts of {model.name} do not divide by {ep}"
    if reason:
        fit = [size for size in _divisors(per_stage) if model.experts % size == 0]
        raise _unfit(pool, "ep", reason, fit)
    return ep
