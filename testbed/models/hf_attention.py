"""The attention of each layer of a `config.json`: heads, latents, windows, and KV that layers share."""

from collections.abc import Mapping, Sequence

import msgspec

from testbed.models.hf_families import MULTI_HEAD, OUTPUT_GATED
from testbed.models.hf_layers import Kind, Kinds
from testbed.models.hf_names import HEAD_DIM, HEADS, KV_HEADS, LATENT, V_HEAD_DIM, WINDOW
from testbed.models.hf_reading import ConfigError, Reader
from testbed.models.shape import Attention, LatentAttention, TokenIndex

_INDEX_SCALE_BYTES = 4
"""An index key is kept in FP8 with one scale of 32 bits (DeepSeek-V3.2)."""


def attention_of_layers(model: Reader, family: str, kinds: Kinds, hidden: int) -> tuple[Attention, ...]:
    """Return the attention of each layer, as if every layer had one.

    The KV heads default to what the family's class has, and the width of a head to hidden size / heads.
    Raises `ConfigError`, naming the key, for a missing size and for sizes that are impossible.
    """
    layers = len(kinds)
    heads = model.sizes(HEADS, layers)
    per_layer = ("num_attention_heads_per_layer",)
    if model.named(per_layer, default=""):
        heads = model.sizes(per_layer, layers)
    latent = _latent(model)
    if latent is not None:
        _refuse_heads_of_windows(model)
        attention = [_with_latent(count, latent) for count in heads]
    else:
        attention = _by_heads(model, family, kinds, hidden, heads)
    index = _index(model, latent)
    gated = model.flag("attn_output_gate")
    gate = gated is True or (gated is None and family in OUTPUT_GATED)
    windowed = [
        msgspec.structs.replace(
            each, window=_window(model, kind), index=index if kind is Kind.FULL else None, output_gate=gate
        )
        for each, kind in zip(attention, kinds, strict=True)
    ]
    return _sharing(model, windowed, kinds)


def _with_latent(heads: int, latent: LatentAttention) -> Attention:
    # K and V have as many heads as the queries once they are computed from the latent.
    return Attention(
        q_heads=heads,
        kv_heads=heads,
        head_dim=latent.nope_dim + latent.rope_dim,
        v_dim=latent.v_dim,
        latent=latent,
    )


def _by_heads(model: Reader, family: str, kinds: Kinds, hidden: int, heads: Sequence[int]) -> list[Attention]:
    layers = len(kinds)
    kv_heads = _kv_heads(model, family, heads)
    _refuse_uneven(model, heads, kv_heads)
    head_dim = _head_dim(model, hidden, heads)
    v_dim: Sequence[int] = head_dim
    if model.named(V_HEAD_DIM, default="") and model.flag("use_mla") is not False:
        v_dim = model.sizes(V_HEAD_DIM, layers)
    plain = [
        {"q_heads": q, "kv_heads": kv, "head_dim": dim, "v_dim": v}
        for q, kv, dim, v in zip(heads, kv_heads, head_dim, v_dim, strict=True)
    ]
    one_projection = model.flag("attention_k_eq_v")
    if one_projection is False:
        model.ask("num_global_key_value_heads")  # Gemma 4 states it even if it has no effect
    singled = _singled_out(model, layers)
    found: list[Attention] = []
    for layer, (kind, own) in enumerate(zip(kinds, plain, strict=True)):
        if kind is Kind.WINDOW:
            own = _with(own, model, _SWA)
        elif kind is Kind.FULL:
            own = _with(own, model, _GLOBAL)
            if one_projection is not False:
                own = _with(own, model, _GLOBAL_KV)
        own |= singled.get(layer, {})
        _refuse_uneven(model, (own["q_heads"],), (own["kv_heads"],))
        shared = one_projection is True and kind is Kind.FULL
        found.append(
            Attention(
                q_heads=own["q_heads"],
                kv_heads=own["kv_heads"],
                head_dim=own["head_dim"],
                v_dim=own["v_dim"],
                keys_are_values=shared,
            )
        )
    return found


def _refuse_uneven(model: Reader, heads: Sequence[int], kv_heads: Sequence[int]) -> None:
    for own, kv in zip(heads, kv_heads, strict=True):
        if own % kv:
            key = model.named(KV_HEADS)
            raise ConfigError(f"{key}: {kv} KV heads do not divide {own} query heads")


_SWA = {
    "q_heads": ("swa_num_attention_heads",),
    "kv_heads": ("swa_num_key_value_heads",),
    "head_dim": ("swa_head_dim",),
    "v_dim": ("swa_v_head_dim",),
}
_GLOBAL = {"head_dim": ("global_head_dim",)}
_GLOBAL_KV = {"kv_heads": ("num_global_key_value_heads",)}


def _with(own: dict[str, int], model: Reader, names: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The sizes of a layer, replaced by those that the file states for layers of its kind.

    A head whose values are as wide as its keys keeps that if only the width of its keys is stated.
    """
    found = {field: model.size(keys, default=own[field]) for field, keys in names.items()}
    stated = [key for keys in names.values() for key in keys if model.get(key) is not None]
    if "head_dim" in found and own["v_dim"] == own["head_dim"] and "swa_v_head_dim" not in stated:
        found["v_dim"] = found["head_dim"]
    return own | found


_FIELDS = {
    "num_attention_heads": "q_heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "v_head_dim": "v_dim",
}


def _singled_out(model: Reader, layers: int) -> dict[int, dict[str, int]]:
    """The sizes that `per_layer_config` states for single layers, by layer and field of `Attention`."""
    given = model.get("per_layer_config") or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"per_layer_config: {given!r} is not a mapping of layers")
    found: dict[int, dict[str, int]] = {}
    for layer, keys in given.items():
        if not str(layer).isdigit() or int(layer) >= layers or not isinstance(keys, Mapping):
            raise ConfigError(f"per_layer_config: {layer!r} is not a layer of a model of {layers} layers")
        if unknown := set(keys) - set(_FIELDS):
            raise ConfigError(f"per_layer_config: {min(unknown)} of single layers is not modelled")
        own = {_FIELDS[key]: Reader(keys).size((key,)) for key in keys}
        if "head_dim" in own:
            own.setdefault("v_dim", own["head_dim"])
        found[int(layer)] = own
    return found


def _refuse_heads_of_windows(model: Reader) -> None:
    for names in (_SWA, _GLOBAL, _GLOBAL_KV):
        for key in (key for keys in names.values() for key in keys):
            if model.get(key) not in (None, False):
                raise ConfigError(f"{key}: latent attention in only some layers is not modelled")
    if model.get("per_layer_config"):
        raise ConfigError("per_layer_config: latents that differ between layers are not modelled")
    model.ask("attention_k_eq_v", *KV_HEADS, *HEAD_DIM, *V_HEAD_DIM)


def _latent(model: Reader) -> LatentAttention | None:
    stated = model.flag("use_mla")
    if stated is False:  # Hunyuan states the ranks even so
        model.ask(*LATENT, *V_HEAD_DIM)
        return None
    if model.get("kv_lora_rank") is None and stated is None:
        return None
    latent = LatentAttention(
        q_rank=model.count(("q_lora_rank",)),
        kv_rank=model.size(("kv_lora_rank",)),
        nope_dim=model.size(("qk_nope_head_dim",)),
        rope_dim=model.size(("qk_rope_head_dim",)),
        v_dim=model.size(V_HEAD_DIM),
    )
    width = latent.nope_dim + latent.rope_dim
    if model.size(("qk_head_dim",), default=width) != width:
        raise ConfigError(f"qk_head_dim: is not qk_nope_head_dim + qk_rope_head_dim = {width}")
    return latent


def _index(model: Reader, latent: LatentAttention | None) -> TokenIndex | None:
    kinds = model.get("indexer_types")
    if model.get("index_head_dim") is None and model.get("index_topk") is None:
        return None
    if latent is None:
        raise ConfigError("index_topk: sparse attention without a latent is not modelled")
    if isinstance(kinds, list) and set(kinds) != {"full"}:
        raise ConfigError("indexer_types: index keys that layers share are not modelled")
    dim = model.size(("index_head_dim",))
    index = TokenIndex(
        heads=model.size(("index_n_heads",)),
        dim=dim,
        top_k=model.size(("index_topk",)),
        key_bytes=dim + _INDEX_SCALE_BYTES,
    )
    model.note(
        f"index_head_dim: each layer keeps an index key of {index.key_bytes} B per token (FP8 and a scale), "
        f"which counts as KV"
    )
    return index


def _kv_heads(model: Reader, family: str, heads: Sequence[int]) -> tuple[int, ...]:
    layers = len(heads)
    one = model.flag("multi_query") is True or model.word("attn_type") == "multiquery_attention"
    if one and model.flag("new_decoder_architecture") is not True:
        model.ask(*KV_HEADS)
        return (1,) * layers
    # Falcon states its KV heads, and ChatGLM its groups, even if a switch turns them off.
    named: tuple[str, ...] = KV_HEADS
    if model.flag("new_decoder_architecture") is False:
        model.ask(*KV_HEADS)
        return tuple(heads)
    if model.flag("multi_query_attention") is False:
        model.ask("multi_query_group_num")
        named = tuple(key for key in named if key != "multi_query_group_num")
    if model.named(named, default="") == "":
        if family not in MULTI_HEAD:
            raise ConfigError(
                f"{named[0]}: missing (so are {', '.join(named[1:])}), and the default of this family is not "
                f"known"
            )
        return tuple(heads)
    return model.sizes(named, layers)


def _head_dim(model: Reader, hidden: int, heads: Sequence[int]) -> tuple[int, ...]:
    if model.named(HEAD_DIM, default=""):
        return model.sizes(HEAD_DIM, len(heads))
    if uneven := [count for count in heads if hidden % count]:
        key = model.named(HEADS)
        raise ConfigError(
            f"{key}: {uneven[0]} heads do not divide a hidden size of {hidden}, and head_dim is missing"
        )
    if len(set(heads)) > 1:
        raise ConfigError("head_dim: missing, and layers differ in their heads")
    return tuple(hidden // count for count in heads)


def _window(model: Reader, kind: Kind) -> int | None:
    if kind is Kind.CHUNK:
        model.note(
            f"{model.named(WINDOW)}: attention within a chunk counts as a window of that size, so scores are "
            f"an upper bound"
        )
    if kind not in (Kind.WINDOW, Kind.CHUNK):
        return None
    window = model.size(WINDOW)
    model.note(f"{model.named(WINDOW)}: KV outside the window of {window} tokens is kept and sent, too")
    return window


def _sharing(model: Reader, attention: Sequence[Attention], kinds: Kinds) -> tuple[Attention, ...]:
    """Mark the layers that use the KV of an earlier one: the last ones, or all but every n-th."""
    layers = len(attention)
    last = model.count(("num_kv_shared_layers",))
    sharing: set[int] = set(range(layers - last, layers)) if last else set()
    if model.flag("use_cla") is True:
        factor = model.size(("cla_share_factor",))
        sharing |= {layer for layer in range(layers) if layer % factor}
        if any(attention[layer] != attention[layer - layer % factor] for layer in sharing):
            raise ConfigError("cla_share_factor: layers that share KV differ in their heads or windows")
    model.ask("cla_share_factor")
    if last:
        owners = set(kinds[: max(0, layers - last)])
        if last >= layers or not set(kinds[layers - last :]) <= owners:
            raise ConfigError(f"num_kv_shared_layers: no earlier layer has the KV for the last {last}")
    return tuple(
        msgspec.structs.replace(each, shares_kv=layer in sharing) for layer, each in enumerate(attention)
    )
