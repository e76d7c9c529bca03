// What a flow will put on each port, as far as it is known before the flow has a lane of its pool.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "controller/core/port_loads.hpp"

namespace mfs {

// A port that every lane of the pool crosses gets all bytes; a port that n of m lanes cross gets n/m of them,
// rounded down.
class ExpectedLoad {
  public:
    // Another lane, over these ports.
    void add(const std::vector<int>& path) {
        ++lanes_;
        for (const int port : path) {
            const auto at = std::find_if(crossing_.begin(), crossing_.end(),
                                         [&](const auto& each) { return each.first == port; });
            if (at == crossing_.end()) {
                crossing_.emplace_back(port, 1);
            } else {
                ++at->second;
            }
        }
    }

    Load of(std::int64_t size) const {
        Load load;
        for (const auto& [port, lanes] : crossing_) {
            // As `size * lanes / lanes_`, but a product of two large numbers could overflow.
            load.push_back({port, size / lanes_ * lanes + size % lanes_ * lanes / lanes_});
        }
        return load;
    }

  private:
    std::int64_t lanes_ = 0;
    std::vector<std::pair<int, std::int64_t>> crossing_;  // ports, and how many lanes cross each
};

}  // namespace mfs
