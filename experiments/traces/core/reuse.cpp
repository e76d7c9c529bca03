#include "experiments/traces/core/reuse.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

namespace mfs {

namespace {

constexpr std::int64_t NONE = -1;

void check(bool right, const char* what) {
    if (!right) throw std::out_of_range(what);
}

// The numbers of the ids so far: a table of open addressing, at most half full, of places in `ids_`.
class Numbers {
  public:
    std::int64_t of(std::int64_t id) {
        if (2 * ids_.size() >= slots_.size()) grow();
        std::uint32_t& slot = find(id);
        if (slot == FREE) {
            check(ids_.size() < FREE, "more than 4 billion blocks");
            slot = static_cast<std::uint32_t>(ids_.size());
            ids_.push_back(id);
        }
        return slot;
    }

  private:
    static constexpr std::uint32_t FREE = 0xFFFFFFFF;

    // The slot of `id`, or the free one that it would take.
    std::uint32_t& find(std::int64_t id) {
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): ids in a row spread over the table.
        std::uint64_t at = (static_cast<std::uint64_t>(id) * 0x9E3779B97F4A7C15u) >> (64 - bits_);
        while (slots_[at] != FREE && ids_[slots_[at]] != id) at = (at + 1) & (slots_.size() - 1);
        return slots_[at];
    }

    void grow() {
        slots_ = {};
        slots_.resize(std::size_t{1} << ++bits_, FREE);
        for (std::size_t place = 0; place < ids_.size(); ++place) find(ids_[place]) = static_cast<std::uint32_t>(place);
    }

    int bits_ = 10;
    std::vector<std::uint32_t> slots_ = std::vector<std::uint32_t>(std::size_t{1} << bits_, FREE);
    std::vector<std::int64_t> ids_;
};

// How many of the places so far are the last use of their block: a tree of partial sums.
class Marks {
  public:
    explicit Marks(std::int64_t size) : tree_(size + 1) {
        check(size <= std::numeric_limits<std::int32_t>::max(), "more than 2 billion uses of blocks");
    }

    void add(std::int64_t place, std::int32_t count) {
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
    std::vector<std::int32_t> tree_;
    std::int64_t total_ = 0;
};

}  // namespace

void number(std::span<std::int64_t> ids) {
    Numbers numbers;
    for (std::int64_t& id : ids) id = numbers.of(id);
}

Distances distances(Longs blocks, Longs starts, std::int64_t distinct) {
    const std::int64_t size = static_cast<std::int64_t>(blocks.size());
    for (const std::int64_t block : blocks) check(block >= 0 && block < distinct, "a block is not below `distinct`");
    check(!starts.empty() && starts.front() >= 0 && starts.back() <= size && std::ranges::is_sorted(starts),
          "the starts have to ascend within the blocks");
    Distances found;
    found.reused.resize(starts.size() - 1);
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
            found.distance.push_back(farthest);
            found.since.push_back(static_cast<std::int64_t>(request) - last_request[blocks[i]]);
            ++found.reused[request];
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
