"""How long collectives took, from their shares, of which a long run has more than fit into memory."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from testbed.columns import codes, numbers

IntArray = npt.NDArray[np.int64]

_NONE = np.empty(0, dtype=np.int64)


class OpenCollectives:
    """Collectives of which shares may still come.

    The shares of a batch with the same coflow are a collective, and one without a coflow is one of its own.
    Those whose last share was submitted before `since_ns` do not count.

    A unit works on at most `at_once` batches at a time. So the collectives of a batch are complete when
    shares of that many other batches of the unit have come since, and are then dropped. `units` has the unit
    of each batch. Collectives of a batch without a unit are kept until the end.
    """

    def __init__(self, units: Mapping[str, str], at_once: int, since_ns: int) -> None:
        self._units = units
        self._at_once = at_once
        self._since_ns = since_ns
        self._batches: dict[str | None, int] = {}
        # The last batches of each unit, the latest one at the end. All batches without a unit are under None.
        self._at_work: dict[str | None, dict[int, None]] = {}
        self._names = pa.array([], pa.string())  # of the open collectives, each with the number of its batch
        self._batch = self._submit_ns = self._finish_ns = _NONE  # of each: the last submit and finish
        self._took_ns: list[IntArray] = [_NONE]

    def take(self, shares: pa.RecordBatch) -> None:
        """Add shares, which have the columns id, batch, coflow, submit_ns and finish_ns."""
        if not shares.num_rows:
            return
        batch = self._numbers_of_batches(*codes(shares, "batch"))
        name = _names(shares)
        count = len(name.dictionary)
        keys, group = np.unique(batch * count + name.indices.to_numpy(), return_inverse=True)
        batch, code = np.divmod(keys, count)
        names = pc.binary_join_element_wise(
            pa.array(batch).cast(pa.string()), name.dictionary.take(pa.array(code)), " "
        )
        times = [_latest(numbers(shares, of), group) for of in ("submit_ns", "finish_ns")]
        known = pc.index_in(names, value_set=self._names).fill_null(-1).to_numpy()
        again, fresh = known >= 0, known < 0
        for mine, found in zip((self._submit_ns, self._finish_ns), times, strict=True):
            mine[known[again]] = np.maximum(mine[known[again]], found[again])
        stays = ~self._drop_complete()
        self._names = pa.concat_arrays([self._names.filter(pa.array(stays)), names.filter(pa.array(fresh))])
        self._batch, self._submit_ns, self._finish_ns = (
            np.concatenate((mine[stays], found[fresh]))
            for mine, found in (
                (self._batch, batch),
                (self._submit_ns, times[0]),
                (self._finish_ns, times[1]),
            )
        )

    @property
    def open(self) -> int:
        """How many collectives may get more shares."""
        return len(self._batch)

    def took_ns(self) -> IntArray:
        """Return how long each took, from its last submit to its last finish: no more shares come."""
        self._close(np.ones(len(self._batch), dtype=np.bool_))
        return np.concatenate(self._took_ns)

    def _numbers_of_batches(self, batch: IntArray, batches: Sequence[str]) -> IntArray:
        """Return the number of the batch of each share of a block, given as codes of names, and note on which
        batches their units were at work last."""
        named = [*batches, None]
        number = np.array([self._batches.setdefault(name, len(self._batches)) for name in named])
        seen, since_last = np.unique(batch[::-1], return_index=True)
        for code in seen[np.argsort(-since_last)].tolist():
            unit = self._units.get(batches[code]) if code >= 0 else None
            at_work = self._at_work.setdefault(unit, {})
            at_work.pop(number[code], None)
            at_work[number[code]] = None
            if unit is not None and len(at_work) > self._at_once:
                del at_work[next(iter(at_work))]
        return number[batch]

    def _drop_complete(self) -> npt.NDArray[np.bool_]:
        """Close the collectives that are complete, and return which they are."""
        at_work = [number for some in self._at_work.values() for number in some]
        complete = ~np.isin(self._batch, at_work)
        self._close(complete)
        return complete

    def _close(self, chosen: npt.NDArray[np.bool_]) -> None:
        counts = chosen & (self._submit_ns >= self._since_ns)
        self._took_ns.append((self._finish_ns - self._submit_ns)[counts])


def _names(shares: pa.RecordBatch) -> pa.DictionaryArray:
    """Return the names of the collectives of shares. One without a coflow is called like its only share."""
    names = shares.column("coflow")
    if names.null_count or "" in names.dictionary.to_pylist():
        plain = pa.array([name or None for name in names.to_pylist()], pa.string())
        names = pc.coalesce(plain, shares.column("id").cast(pa.string())).dictionary_encode()
    return names


def _latest(times: IntArray, group: IntArray) -> IntArray:
    """Return the latest of the times of each group."""
    found: IntArray = np.full(int(group.max()) + 1, np.iinfo(np.int64).min)
    np.maximum.at(found, group, times)
    return found
