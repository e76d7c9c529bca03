// Questions about the streams and ports of `Links`.
#include <algorithm>
#include <ranges>
#include <vector>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

double Links::left_bytes(int stream, Ns now) const {
    const Stream& asked = streams_[stream];
    return std::max(0.0, asked.left - asked.rate * static_cast<double>(now - asked.since));
}

void Links::sent_bytes(Ns now, double* out) {
    for (const End& end : heap_) bring_up_to(now, streams_[end.stream]);
    for (const Port& port : ports_) out = std::copy_n(port.sent, LEVELS, out);
}

double Links::busy_ns(Ns now, int port) {
    if (!added_.empty() || !moved_.empty()) {
        changed_ = true;
        take_in(now);
    }
    const Port& asked = ports_[port];
    double total = 0.0;
    for (const std::vector<Guest>& guests : asked.guests) {
        for (const auto& [stream, hop] : std::views::reverse(guests)) {
            total += hops_[hop].weight * left_bytes(stream, now);
        }
    }
    return total / asked.capacity;
}

double Links::fullest_now() const {
    double most = 0.0;
    for (const Port& port : ports_) {
        double used = 0.0;
        for (const std::vector<Guest>& guests : port.guests) {
            for (const auto& [stream, hop] : std::views::reverse(guests)) {
                used += hops_[hop].weight * streams_[stream].rate;
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
        for (const auto& [number, hop] : std::views::reverse(port.guests[level])) {
            const Stream& other = streams_[number];
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
