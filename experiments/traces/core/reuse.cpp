#include "experiments/traces/core/reuse.hpp"

#include <algorithm>
#include <stdexcept>

namespace mfs {

namespace {

constexpr std::int64_t NONE = -1;

void check(bool right, const char* what) {
    if (!right) throw std::out_of_range(what);
}

// How many of the places so far are the last use of their block: a tree of partial sums.
class Marks {
  public:
    explicit Marks(std::int64_t size) : tree_(size + 1) {}

    void add(std::int64_t place, std::int64_t count) {
        total_ += count;
        const std::int64_t size = static_cast<std::int64_t>(tree_.size());
        for (std::int64_t node = place + 1; node < size; node += node & -node) tree_[node] += count;
    }

    std::int64_t after(std::int64_t place) const {
        std::int64_t until = 0;
        for (std::int64_t node = place + 1; node > 0; node -= node & -node) until += tree_[node];
        return total_ - until;
    }

  private:
    std::vector<std::int64_t> tree_;
    std::int64_t total_ = 0;
};

}  // namespace

Distances distances(Longs blocks, Longs starts, std::int64_t distinct) {
    const std::int64_t size = static_cast<std::int64_t>(blocks.size());
    for (const std::int64_t block : blocks) check(block >= 0 && block < distinct, "a block is not below `distinct`");
    check(!starts.empty() && starts.front() >= 0 && starts.back() <= size && std::ranges::is_sorted(starts),
          "the starts have to ascend within the blocks");
    Distances found{std::vector<std::int64_t>(size), std::vector<std::int64_t>(size), std::vector<std::uint8_t>(size)};
    std::vector<std::int64_t> last_place(distinct, NONE);  // in the order of all uses
    std::vector<std::int64_t> last_request(distinct, NONE);
    Marks marks(size);
    std::int64_t place = 0;
    for (std::size_t request = 0; request + 1 < starts.size(); ++request) {
        const std::int64_t begin = starts[request];
        const std::int64_t end = starts[request + 1];
        std::int64_t farthest = 0;
        for (std::int64_t i = begin; i < end && last_place[blocks[i]] != NONE; ++i) {
            farthest = std::max(farthest, marks.after(last_place[blocks[i]]));
            found.distance[i] = farthest;
            found.since[i] = static_cast<std::int64_t>(request) - last_request[blocks[i]];
            found.hit[i] = 1;
        }
        for (std::int64_t i = end - 1; i >= begin; --i) {
            const std::int64_t block = blocks[i];
            if (last_place[block] != NONE) marks.add(last_place[block], -1);
            marks.add(place, 1);
            last_place[block] = place++;
            last_request[block] = static_cast<std::int64_t>(request);
        }
    }
    return found;
}

std::vector<std::int64_t> ends(Longs before, Longs deepest_first) {
    const std::int64_t blocks = static_cast<std::int64_t>(before.size());
    std::vector<std::int64_t> found(before.size(), NO_END);
    for (const std::int64_t block : deepest_first) {
        check(block >= 0 && block < blocks, "there is no such block");
        if (found[block] == NO_END) found[block] = block;
        const std::int64_t above = before[block];
        if (above == NO_END) continue;
        check(above >= 0 && above < blocks, "there is no such block");
        found[above] = found[above] == NO_END ? found[block] : SEVERAL_ENDS;
    }
    return found;
}

}  // namespace mfs
