// Loops over all blocks of a trace, for `experiments.traces.reuse`.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mfs {

using Longs = std::span<const std::int64_t>;

// For each access of a block: its stack distance in blocks, the number of requests since the last use, and whether
// it is a reuse, that is whether the block and all before it in the prompt had been used.
struct Distances {
    std::vector<std::int64_t> distance;
    std::vector<std::int64_t> since;
    std::vector<std::uint8_t> hit;
};

// The blocks of request i are `blocks[starts[i]]` up to `blocks[starts[i + 1]]`, and all are below `distinct`.
// Throws `std::out_of_range` if they are not.
Distances distances(Longs blocks, Longs starts, std::int64_t distinct);

constexpr std::int64_t NO_END = -1;
constexpr std::int64_t SEVERAL_ENDS = -2;

// The end of the shared prefixes that continue each shared block: the block itself if there are none, SEVERAL_ENDS
// if they have several ends. `before` is the block that each block follows, NO_END if there is none.
// Throws `std::out_of_range` for a block that is not in `before`.
std::vector<std::int64_t> ends(Longs before, Longs deepest_first);

}  // namespace mfs
