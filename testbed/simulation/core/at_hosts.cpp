// The order of streams on some ports only: hosts send in exact order, and switches know levels.
//
// Within a level, an ordered port (of a server) serves its streams by their order, and every other port shares fairly
// among them. So a stream has a bottleneck, unless its cap holds it back: an ordered port that is full with streams
// of its place or smaller ones, on which no stream of its place is faster, or another port that is full with streams
// down to its level, on which none of its level is faster. `held_back` checks this.
//
// What a stream can get of its host depends on the rates of the streams before it there, which depend on the rest
// of the network. So the rates are worked out in rounds: an ordered port is taken for one port per order, each with
// what the orders before it left in the round before. In the first round, the first order of a port has all of it.
// So a host's first streams get what switches give them beside the first ones of others, and later ones come in where
// these leave something. In 100 random networks of up to 40 streams, half of the cases took 4 rounds or fewer, and
// none more than 104. Others go in circles: a stream takes what another leaves, which then takes what this one left. So
// after many rounds, slots go only half of the way, and the circle becomes a spiral to the rates that keep the law.
#include <algorithm>
#include <cmath>
#include <limits>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

namespace {

constexpr int MOST_ROUNDS = 1000;
constexpr int WHOLE_STEPS = 128;  // rounds: more than nearly all networks take
constexpr double SETTLED = 1e-12;  // the change of a share of a port that ends the rounds

}  // namespace

// Writes rates to `fresh` for streams of one level that differ in order. `spare` of their ports is what the level has.
void Links::share_at_hosts(const std::vector<int>& streams) {
    find_slots(streams);
    for (Slot& slot : slots_) slot.used = std::numeric_limits<double>::infinity();
    int rounds = 0;
    double change = 0.0;
    do {
        change = 0.0;
        fill_slots(streams);
        for (Slot& slot : slots_) std::swap(slot.used, slot.before);
        for (Slot& slot : slots_) slot.used = 0.0;
        std::size_t at = 0;
        for (const int number : streams) {
            const Stream& stream = streams_[number];
            for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
                slots_[slot_of_[at++]].used += hops_[hop].weight * stream.fresh;
            }
        }
        for (const Slot& slot : slots_) {
            change = std::max(change, std::abs(slot.used - slot.before) / ports_[slot.port].capacity);
        }
        if (rounds >= WHOLE_STEPS) {
            for (Slot& slot : slots_) slot.used = (slot.before + slot.used) / 2;
        }
    } while (change > SETTLED && ++rounds < MOST_ROUNDS);
    unsettled_ += rounds == MOST_ROUNDS;
}

// Gives each hop of each stream a slot: that of its port, or of its port and order if the port is ordered. The
// slots of a port come one after the other, by order.
void Links::find_slots(const std::vector<int>& streams) {
    slots_.clear();
    slot_of_.clear();
    wanted_slots_.clear();
    int at = 0;
    for (std::size_t i = 0; i < streams.size(); ++i) {
        const Stream& stream = streams_[streams[i]];
        for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
            const int port = hops_[hop].port;
            wanted_slots_.push_back({port, ordered_ports_[port] ? order_of(streams[i]) : 0.0, at++, static_cast<int>(i)});
        }
    }
    std::sort(wanted_slots_.begin(), wanted_slots_.end());
    slot_of_.resize(wanted_slots_.size());
    for (std::size_t i = 0; i < wanted_slots_.size(); ++i) {
        const WantedSlot& one = wanted_slots_[i];
        const bool same_port = i > 0 && wanted_slots_[i - 1].port == one.port;
        if (!same_port || wanted_slots_[i - 1].order != one.order) {
            slots_.push_back({one.port, !same_port, static_cast<int>(i)});
        }
        slot_of_[one.at] = static_cast<int>(slots_.size()) - 1;
        ++slots_.back().guests;
    }
}

// One round: max-min fair rates, if each slot has what the slots of its port before it left in the round before.
void Links::fill_slots(const std::vector<int>& streams) {
    by_cap_.clear();
    first_slot_.clear();
    int at = 0;
    for (Slot& slot : slots_) {
        slot.weight = 0.0;
        slot.waiting = slot.guests;
    }
    for (const int number : streams) {
        Stream& stream = streams_[number];
        stream.fresh = -1.0;
        if (stream.cap < NO_ORDER) by_cap_.push_back({stream.cap, static_cast<int>(first_slot_.size()), number});
        first_slot_.push_back(at);
        for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
            slots_[slot_of_[at++]].weight += hops_[hop].weight;
        }
    }
    std::sort(by_cap_.begin(), by_cap_.end());
    double left = 0.0;
    shares_.clear();
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        Slot& slot = slots_[i];
        const Port& port = ports_[slot.port];
        if (slot.first) left = port.spare;
        slot.spare = left <= FULL * port.capacity ? 0.0 : left;
        left -= slot.used;
        push_share(slot.spare / slot.weight, static_cast<int>(i));
    }
    const auto settle = [&](int i, double rate) {
        Stream& stream = streams_[streams[i]];
        stream.fresh = rate;
        for (int hop = 0; hop < stream.hops; ++hop) {
            Slot& slot = slots_[slot_of_[first_slot_[i] + hop]];
            const double weight = hops_[stream.first_hop + hop].weight;
            slot.spare -= weight * rate;
            slot.weight -= weight;
            --slot.waiting;
        }
    };
    std::size_t next_cap = 0;
    while (!shares_.empty()) {
        const Share lowest = shares_[0];
        Slot& slot = slots_[lowest.port];
        pop_share();
        if (slot.waiting == 0) continue;
        const double now = slot.weight > 0.0 ? std::max(0.0, slot.spare) / slot.weight : 0.0;
        if (now > lowest.share) {
            push_share(now, lowest.port);
            continue;
        }
        while (next_cap < by_cap_.size() && streams_[by_cap_[next_cap].stream].fresh >= 0.0) ++next_cap;
        if (next_cap < by_cap_.size() && by_cap_[next_cap].key < now) {
            push_share(lowest.share, lowest.port);
            settle(by_cap_[next_cap].at, by_cap_[next_cap].key);
            continue;
        }
        for (int i = slot.begin; i < slot.begin + slot.guests; ++i) {
            const int stream = wanted_slots_[i].stream;
            if (streams_[streams[stream]].fresh < 0.0) settle(stream, now);
        }
    }
}

}  // namespace mfs
