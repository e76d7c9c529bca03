// Questions about the streams and ports of `Links`.
#include <algorithm>
#include <vector>

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

// Every stream that moves below its cap must have a bottleneck: a port that is full with streams of the same or
// smaller places, on which no stream of the same place is faster (Bertsekas and Gallager, Data Networks, 6.5.2).
// This is worked out from the lists of streams, not from what the sharing algorithm keeps.
int Links::held_back(double tolerance) const {
    std::vector<char> held(streams_.size(), 0);
    int count = 0;
    for (std::size_t i = 0; i < streams_.size(); ++i) {
        const Stream& stream = streams_[i];
        held[i] = stream.level != NONE && stream.rate < stream.cap * (1 - tolerance);
        count += held[i];
    }
    std::vector<int> on_port;
    for (const Port& port : ports_) {
        on_port.clear();
        for (const int head : port.first_hop) {
            for (int hop = head; hop != NONE; hop = hops_[hop].following) on_port.push_back(hop);
        }
        const auto place = [&](int hop) {
            const Stream& stream = streams_[hops_[hop].stream];
            return Place{stream.level, stream.order};
        };
        const auto before = [&](int a, int b) {
            const Place one = place(a), other = place(b);
            return one.level != other.level ? one.level < other.level : one.order < other.order;
        };
        std::sort(on_port.begin(), on_port.end(), before);
        double used = 0.0;
        for (auto first = on_port.begin(); first != on_port.end();) {
            const auto last = std::upper_bound(first, on_port.end(), *first, before);
            double fastest = 0.0;
            for (auto hop = first; hop != last; ++hop) {
                const Stream& stream = streams_[hops_[*hop].stream];
                used += hops_[*hop].weight * stream.rate;
                fastest = std::max(fastest, stream.rate);
            }
            const bool full = used >= port.capacity * (1 - tolerance);
            for (auto hop = first; full && hop != last; ++hop) {
                const int stream = hops_[*hop].stream;
                if (held[stream] && streams_[stream].rate >= fastest * (1 - tolerance) - tolerance * port.capacity) {
                    held[stream] = 0;
                    --count;
                }
            }
            first = last;
        }
    }
    return count;
}

}  // namespace mfs
