// What `at_hosts.cpp` works with: ports, of which an ordered one is taken for one port per order.
#pragma once

#include <tuple>

namespace mfs {

// Where a stream wants a slot; slots are in this order.
struct WantedSlot {
    int port;
    double order;
    int at;      // the number of the hop, over all streams
    int stream;  // by its place in the list of streams

    bool operator<(const WantedSlot& other) const {
        return std::tie(port, order, at) < std::tie(other.port, other.order, other.at);
    }
};

// A port, or one order of an ordered port: what its streams use now, and what they used in the round before.
struct Slot {
    int port;
    bool first;  // of its port
    int begin;   // in the list of wanted slots
    int guests = 0, waiting = 0;
    double spare = 0.0, weight = 0.0, used = 0.0, before = 0.0;
};

}  // namespace mfs
