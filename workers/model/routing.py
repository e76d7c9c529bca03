"""Which experts a token visits: its place in the prompt decides, so that every part gets equally many.

A learned router sends more tokens to some experts. A plan without skew counts on an even spread, so the
choice here is one that is even by construction, as in Roller et al., "Hash Layers for Large Sparse Models"
(2021), where a hash of the token decides. How much each visit counts does depend on the token: it is what the
gate says, as in other mixtures of experts.
"""

import torch

from workers.model.seeds import generator
from workers.model.setup import Decoder


def visited(decoder: Decoder, layer: int, positions: torch.Tensor) -> torch.Tensor:
    """The experts (t, top_k) that the tokens at `positions` (t) visit, all different for each token.

    The visits of all positions, one after the other, go to the `expert_ways` parts of the experts in turn,
    and within a part to its experts in turn. So any run of positions whose visits are a multiple of the parts
    visits each part equally often. The order of parts and experts is drawn for each layer. If ranks divide
    the tokens of a prompt, this holds for the tokens of each rank.
    """
    ways = decoder.expert_ways
    each = decoder.experts // ways
    drawn = generator(f"routing {decoder.seed} {layer}")
    parts, inside = torch.randperm(ways, generator=drawn), torch.randperm(each, generator=drawn)
    visits = (positions // decoder.sequence_parts)[:, None] * decoder.top_k + torch.arange(decoder.top_k)
    return parts[visits % ways] * each + inside[visits // ways % each]
