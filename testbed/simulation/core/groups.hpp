// What links keep of bundles that have one order together (`groups.cpp`).
#pragma once

#include <vector>

#include "testbed/simulation/core/places.hpp"

namespace mfs {

struct GroupRow {
    int row;
    int last;  // port
};

// What a turn and a look at what is left need of a row, as in its `Stream` and `Bundle`.
struct RowState {
    double members;
    double rate;
    double served;
    double sum_of_ends;
    Ns since;
};

// The rows of a group whose first port is `port`.
struct GroupPart {
    int port;
    std::vector<GroupRow> rows;
    std::vector<RowState> states;  // by place in `rows`
};

// Bundles of one order.
struct OrderedGroup {
    double order;
    int size;           // rows
    int sizes[LEVELS];  // rows of each level
    bool plain;         // every row has two ports and no cap
    std::vector<GroupPart> parts;
};

// A row of plain groups in its turn. Each of its ports has a chain of such rows: `before` is the next one.
struct Pair {
    double fresh;
    double members;
    double rate;
    int row;
    int ports[2];
    int before[2];
};

}  // namespace mfs
