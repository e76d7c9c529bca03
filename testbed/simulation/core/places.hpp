// Time, and where a stream stands among others.
#pragma once

#include <cstdint>

namespace mfs {

using Ns = std::int64_t;

constexpr Ns NEVER = INT64_MAX;
constexpr int LEVELS = 8;

constexpr int NO_GROUP = -1;

// Smaller first: level, then order inside the level. With a group, `order` is 0, and that of the group counts.
struct Place {
    int level;
    double order;
    int group = NO_GROUP;

    bool operator==(const Place&) const = default;
};

}  // namespace mfs
