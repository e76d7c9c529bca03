// Questions about the streams and ports of `Links`.
#include <algorithm>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

double Links::left_bytes(int stream, Ns now) const {
    const Stream& asked = streams_[stream];
    return std::max(0.0, asked.left - asked.rate * static_cast<double>(now - asked.since));
}

void Links::sent_bytes(Ns now, double* out) {
    for (const int stream : heap_) bring_up_to(now, streams_[stream]);
    for (const Port& port : ports_) out = std::copy_n(port.sent, LEVELS, out);
}

double Links::busy_ns(Ns now, int port) {
    if (!added_.empty() || !moved_.empty()) {
        changed_ = true;
        take_in(now);
    }
    const Port& asked = ports_[port];
    double total = 0.0;
    for (const int head : asked.first_hop) {
        for (int hop = head; hop != NONE; hop = hops_[hop].following) {
            total += hops_[hop].weight * left_bytes(hops_[hop].stream, now);
        }
    }
    return total / asked.capacity;
}

double Links::fullest_now() const {
    double most = 0.0;
    for (const Port& port : ports_) {
        double used = 0.0;
        for (const int head : port.first_hop) {
            for (int hop = head; hop != NONE; hop = hops_[hop].following) {
                used += hops_[hop].weight * streams_[hops_[hop].stream].rate;
            }
        }
        most = std::max(most, used / port.capacity);
    }
    return most;
}

int Links::held_back(double tolerance) const {
    return static_cast<int>(std::count_if(streams_.begin(), streams_.end(), [&](const Stream& stream) {
        if (stream.level == NONE || stream.rate >= stream.cap * (1 - tolerance)) return false;
        const Hop* const first = &hops_[stream.first_hop];
        return std::none_of(first, first + stream.hops, [&](const Hop& hop) {
            return is_bottleneck(ports_[hop.port], stream, tolerance);
        });
    }));
}

// Every stream that moves below its cap must have a bottleneck: a port that is full with streams of the same or
// smaller places, on which no stream of the same place is faster (Bertsekas and Gallager, Data Networks, 6.5.2).
// This is worked out from the lists of streams, not from what the sharing algorithm keeps.
bool Links::is_bottleneck(const Port& port, const Stream& stream, double tolerance) const {
    double used = 0.0;
    double fastest = 0.0;
    for (int level = 0; level <= stream.level; ++level) {
        for (int hop = port.first_hop[level]; hop != NONE; hop = hops_[hop].following) {
            const Stream& other = streams_[hops_[hop].stream];
            const bool same = level == stream.level;
            if (same && other.order > stream.order) continue;
            used += hops_[hop].weight * other.rate;
            if (same && other.order == stream.order) fastest = std::max(fastest, other.rate);
        }
    }
    return used >= port.capacity * (1 - tolerance) &&
           stream.rate >= fastest * (1 - tolerance) - tolerance * port.capacity;
}

}  // namespace mfs
