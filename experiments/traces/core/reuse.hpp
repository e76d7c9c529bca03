// Loops over all blocks of a trace, for `experiments.traces.reuse`.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mfs {

using Longs = std::span<const std::int64_t>;

// Replaces ids by numbers from 0, in the order in which they first occur.
void number(std::span<std::int64_t> ids);

// For each reuse of a block: its stack distance in blocks, and the number of requests since the last use. It is a
// reuse if the block and all before it in the prompt had been used. `reused` is how many there are in each request.
struct Distances {
    std::vector<std::int64_t> distance;
    std::vector<std::int64_t> since;
    std::vector<std::int64_t> reused;
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
