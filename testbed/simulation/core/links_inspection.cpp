// Questions about the streams and ports of `Links`.
#include <algorithm>
#include <limits>
#include <ranges>
#include <vector>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

double Links::rate(int stream) const {
    if (!bundled_) return streams_[stream].rate;
    const int row = members_[stream].row;
    return row == NONE ? 0.0 : streams_[row].rate;
}

double Links::left_bytes(int stream, Ns now) const {
    if (bundled_) return left_of(members_[stream], now);
    const Stream& asked = streams_[stream];
    return std::max(0.0, asked.left - asked.rate * static_cast<double>(now - asked.since));
}

void Links::sent_bytes(Ns now, double* out) {
    for (const End& end : heap_) bring_up_to(now, end.stream);
    for (const Port& port : ports_) out = std::copy_n(port.sent, LEVELS, out);
}

double Links::busy_ns(Ns now, int port) {
    if (!added_.empty() || !moved_.empty()) {
        changed_ = true;
        take_in(now);
    }
    const Port& asked = ports_[port];
    if (asked.capacity == 0.0) return std::numeric_limits<double>::infinity();
    double total = 0.0;
    for (const std::vector<Guest>& guests : asked.guests) {
        for (const auto& [stream, hop] : std::views::reverse(guests)) {
            if (!bundled_) {
                total += hops_[hop].weight * left_bytes(stream, now);
                continue;
            }
            for (const auto& [ends, member] : bundles_[stream].members) total += left_of(members_[member], now);
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
        if (used > 0.0) most = std::max(most, used / port.capacity);
    }
    return most;
}

// Every stream that moves below its cap must have a bottleneck: a port that is full with streams of the same or
// smaller places, on which no stream of the same place is faster (Bertsekas and Gallager, Data Networks, 6.5.2).
// Order counts on ordered ports only, if there are any. For a weighted level, the port is full with the levels down to the last weighted one, none of which uses more for
// its weight, and the level sends nothing there but streams of the same or smaller places.
// This is worked out from the lists of streams, not from what the sharing algorithm keeps.
int Links::held_back(double tolerance) const {
    std::vector<char> held;
    for (const Stream& stream : streams_) {
        held.push_back(stream.level != NONE && stream.rate < stream.cap * (1 - tolerance));
    }
    std::vector<Guest> guests;
    bool ordered = true;
    const auto before = [&](const Guest& a, const Guest& b) {
        return ordered && order_of(a.stream) < order_of(b.stream);
    };
    for (const Port& port : ports_) {
        ordered = ordered_ports_.empty() || ordered_ports_[&port - ports_.data()];
        double used = 0.0, of_level[LEVELS], most = 0.0;
        const double to_last_weighted = heaviest(port, of_level, &most);
        for (int level = 0; level < LEVELS; ++level) {
            double in_level = 0.0;
            guests = port.guests[level];
            std::sort(guests.begin(), guests.end(), before);
            for (auto first = guests.begin(); first != guests.end();) {
                const auto last = std::upper_bound(first, guests.end(), *first, before);
                double fastest = 0.0;
                for (auto guest = first; guest != last; ++guest) {
                    used += hops_[guest->hop].weight * streams_[guest->stream].rate;
                    in_level += hops_[guest->hop].weight * streams_[guest->stream].rate;
                    fastest = std::max(fastest, streams_[guest->stream].rate);
                }
                bool full = used >= port.capacity * (1 - tolerance);
                if (is_weighted(level)) {
                    full = to_last_weighted >= port.capacity * (1 - tolerance) &&
                           of_level[level] >= most * level_weights_[level] * (1 - tolerance) &&
                           in_level >= of_level[level] - tolerance * port.capacity;
                }
                const double enough = fastest * (1 - tolerance) - tolerance * port.capacity;
                for (auto guest = first; full && guest != last; ++guest) {
                    if (streams_[guest->stream].rate >= enough) held[guest->stream] = 0;
                }
                first = last;
            }
        }
    }
    if (!bundled_) return static_cast<int>(std::count(held.begin(), held.end(), 1));
    std::size_t members = 0;
    for (std::size_t row = 0; row < held.size(); ++row) members += held[row] ? bundles_[row].members.size() : 0;
    return static_cast<int>(members);
}

}  // namespace mfs
