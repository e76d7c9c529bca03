// How streams share ports: one level after the other, and only where something changed.
#include <algorithm>
#include <cmath>
#include <limits>
#include <ranges>
#include <stdexcept>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

namespace {

constexpr double SAME = 1e-13;  // a smaller relative change of a rate leaves the levels below as they are
constexpr int AHEAD = 8;  // streams: how long before its turn one is fetched from memory
constexpr std::size_t MANY = 64;  // streams: from so many on, their ends may be put in order all at once
constexpr double NO_CAP = std::numeric_limits<double>::infinity();

}  // namespace

// Works out the rates from `now` on, on the dirty ports and wherever these matter.
void Links::work_out(Ns now) {
    if (guarantee_ > 0.0) {  // a level that starts or stops sending changes those above it too
        for (const int port : dirty_) ports_[port].dirty = 0;
    }
    for (const int port : dirty_) {  // and so does a weighted level to the others
        if (is_weighted(ports_[port].dirty)) ports_[port].dirty = first_weighted_;
    }
    bool grouped = false;
    for (int level = 0, below; level < LEVELS; level = below) {
        below = is_weighted(level) ? last_weighted_ + 1 : level + 1;
        if (is_weighted(level)) {
            share_weighted();
            worked_out_ += static_cast<std::int64_t>(affected_.size());
        } else if (bundled_ && ungrouped_[level] == 0) {
            grouped |= share_groups(level);
        } else {
            turns_[level].missed = true;
            share_level(level);
            worked_out_ += static_cast<std::int64_t>(affected_.size());
        }
        const bool many = affected_.size() > MANY && 4 * affected_.size() > heap_.size();
        for (std::size_t at = 0; at < affected_.size(); ++at) {
            if (at + AHEAD < affected_.size()) prefetch(affected_[at + AHEAD]);
            const int number = affected_[at];
            Stream& stream = streams_[number];
            const double before = stream.rate;
            const double after = stream.fresh;
            if (before == after) continue;
            bring_up_to(now, number);
            stream.rate = after;
            if (bundled_) note_state(number);
            many ? set_end(now, number) : foresee(now, number);
            if (below < LEVELS && std::abs(after - before) > SAME * std::max(after, before)) {
                touch(stream, below);
                changes_from(below, -NO_ORDER);
            }
        }
        if (many) order_ends();
    }
    settlings_ += grouped || !dirty_.empty();
    for (const int number : dirty_) {
        Port& port = ports_[number];
        port.dirty = LEVELS;
        note_fullest(port);
    }
    if (grouped) {
        for (const Port& port : ports_) note_fullest(port);
    }
    dirty_.clear();
}

// Asks the memory for what the next rate of a stream changes.
void Links::prefetch(int number) const {
    const Stream& stream = streams_[number];  // `share` has just looked at it
    __builtin_prefetch(&stream, 1);
    __builtin_prefetch(&hops_[stream.first_hop]);
    if (bundled_) __builtin_prefetch(&bundles_[number], 1);
}

void Links::note_fullest(const Port& port) {
    double used = 0.0;
    for (int level = 0; level < LEVELS; ++level) used += port.used[level];
    if (used > 0.0) fullest_ = std::max(fullest_, used / port.capacity);
}

// Works out rates for the streams of `level` that a dirty port can affect, and leaves them in `affected_`.
void Links::share_level(int level) {
    const bool ordered = spread(level);
    if (affected_.empty()) return;
    if (ordered) {
        share_by_order(affected_, level);
    } else {
        share(affected_.data(), affected_.data() + affected_.size(), level);
    }
    for (const int port : queue_) ports_[port].used[level] = 0.0;
    for (const int number : affected_) {
        const Stream& stream = streams_[number];
        for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
            ports_[hops_[hop].port].used[level] += hops_[hop].weight * stream.fresh;
        }
    }
}

// Collects in `affected_` the streams on dirty ports and those that share a port with them, directly or through
// others, and in `queue_` the ports of all of them. Returns whether the streams differ in order.
bool Links::spread(int level) {
    ++epoch_;
    queue_.clear();
    affected_.clear();
    for (const int number : dirty_) {
        Port& port = ports_[number];
        if (port.dirty > level) continue;
        if (port.guests[level].empty()) {
            port.used[level] = 0.0;
        } else {
            port.seen = epoch_;
            queue_.push_back(number);
        }
    }
    bool ordered = false;
    double order = 0.0;
    for (std::size_t done = 0; done < queue_.size(); ++done) {
        Port& port = ports_[queue_[done]];
        open_port(port, level);
        for (const Guest& guest : std::views::reverse(port.guests[level])) {
            const int number = guest.stream;
            if (seen_[number] == epoch_) continue;
            seen_[number] = epoch_;
            const Stream& stream = streams_[number];
            if (affected_.empty()) order = order_of(number);
            affected_.push_back(number);
            if (order_of(number) != order) ordered = true;
            for (int other = stream.first_hop; other < stream.first_hop + stream.hops; ++other) {
                Port& reached = ports_[hops_[other].port];
                if (reached.seen != epoch_) {
                    reached.seen = epoch_;
                    queue_.push_back(hops_[other].port);
                }
            }
        }
    }
    return ordered;
}

// Sets what the levels above leave of a port, less the share that each lower level keeps if it has streams.
void Links::open_port(Port& port, int level) const {
    double spare = port.capacity;
    for (int above = 0; above < level; ++above) spare -= port.used[above];
    if (guarantee_ > 0.0) {
        for (int below = level + 1; below < LEVELS; ++below) {
            if (!port.guests[below].empty()) spare -= guarantee_ * port.capacity;
        }
    }
    port.spare = spare;
    port.waiting = 0;
}

void Links::share_by_order(const std::vector<int>& streams, int level) {
    if (!ordered_ports_.empty()) return share_at_hosts(streams);
    by_order_.clear();
    for (const int number : streams) {
        // A port's streams of later orders must not look unsettled while an earlier order is worked out.
        streams_[number].fresh = 0.0;
        by_order_.push_back({order_of(number), static_cast<int>(by_order_.size()), number});
    }
    std::sort(by_order_.begin(), by_order_.end());
    group_.clear();
    for (const Ordered& one : by_order_) group_.push_back(one.stream);
    std::size_t begin = 0;
    for (std::size_t end = 1; end <= group_.size(); ++end) {
        if (end == group_.size() || by_order_[end].key != by_order_[begin].key) {
            share(group_.data() + begin, group_.data() + end, level);
            begin = end;
        }
    }
}

// Writes max-min fair rates to `fresh` for the streams from `begin` to `end`, which all have the same place.
//
// This is progressive filling, one bottleneck at a time. The port that leaves the least to each of its streams
// settles them, unless a stream has a lower cap, which then settles that stream. A stream of weight w on a port
// takes w times its rate there.
void Links::share(const int* begin, const int* end, int level, bool ends_free) {
    open_streams(begin, end, ends_free);
    shares_.clear();
    for (const int port : open_) push_share(ports_[port].spare / ports_[port].weight, port);
    std::size_t next_cap = 0;
    for (Bottleneck next = next_bottleneck(); next.port != NONE; next = next_bottleneck()) {
        while (next_cap < by_cap_.size() && streams_[by_cap_[next_cap].stream].fresh >= 0.0) ++next_cap;
        if (next_cap < by_cap_.size() && by_cap_[next_cap].key < next.now) {
            Stream& stream = streams_[by_cap_[next_cap].stream];
            ++next_cap;
            push_share(next.share, next.port);
            settle_stream(stream, stream.cap);
            continue;
        }
        settle_all(ports_[next.port], level, next.now);
    }
}

// Takes the next port with open streams off the heap of shares. Its port is NONE if there is none.
Links::Bottleneck Links::next_bottleneck() {
    while (!shares_.empty()) {
        const Share lowest = shares_[0];
        const Port& port = ports_[lowest.port];
        pop_share();
        if (port.waiting == 0) continue;
        if (!(port.weight > 0.0)) throw std::logic_error("rounding has used up the weights of a port");
        const double now = std::max(0.0, port.spare) / port.weight;
        if (now > lowest.share) {  // some streams settled below their share here, so there is more for the others
            push_share(now, lowest.port);
            continue;
        }
        return {lowest.share, now, lowest.port};
    }
    return {0.0, 0.0, NONE};
}

// Settles what is still waiting on a port at this rate.
void Links::settle_all(Port& port, int level, double rate) {
    if (bundled_) {  // a port can have many bundles of later orders, which are not shared now
        for (int at = port.chain; at != NONE && port.waiting > 0; at = chains_[at].before) {
            Stream& stream = streams_[chains_[at].stream];
            if (stream.fresh < 0.0) settle_stream(stream, rate);
        }
        return;
    }
    for (const Guest& guest : std::views::reverse(port.guests[level])) {
        if (port.waiting == 0) break;
        Stream& stream = streams_[guest.stream];
        if (stream.fresh < 0.0) settle_stream(stream, rate);
    }
}

// Collects in `open_` the ports that have streams to settle, and in `by_cap_` those of the streams with a cap.
// A stream over a full port gets nothing, and is settled at once. With `ends_free`, no first or last port is full.
void Links::open_streams(const int* begin, const int* end, bool ends_free) {
    open_.clear();
    by_cap_.clear();
    chains_.clear();
    for (const int* number = begin; number != end; ++number) {
        // Streams lie scattered in memory, and their hops, too.
        if (end - number > 2 * AHEAD) __builtin_prefetch(&streams_[number[2 * AHEAD]], 1);
        if (end - number > AHEAD) __builtin_prefetch(&hops_[streams_[number[AHEAD]].first_hop]);
        Stream& stream = streams_[*number];
        const Hop* const first = &hops_[stream.first_hop];
        const Hop* const last = first + stream.hops;
        stream.fresh = -1.0;
        bool behind_full = false;
        for (const Hop* hop = first + ends_free; hop < last - ends_free; ++hop) {
            behind_full = behind_full || is_full(ports_[hop->port]);
        }
        if (behind_full) {
            stream.fresh = 0.0;
            continue;
        }
        if (stream.cap < NO_CAP) by_cap_.push_back({stream.cap, static_cast<int>(by_cap_.size()), *number});
        for (const Hop* hop = first; hop != last; ++hop) {
            Port& port = ports_[hop->port];
            if (port.waiting == 0) {
                port.weight = 0.0;
                port.chain = NONE;
                open_.push_back(hop->port);
            }
            if (bundled_) {
                chains_.push_back({*number, port.chain});
                port.chain = static_cast<int>(chains_.size()) - 1;
            }
            ++port.waiting;
            port.weight += hop->weight;
        }
    }
    std::sort(by_cap_.begin(), by_cap_.end());
}

void Links::settle_stream(Stream& stream, double rate) {
    stream.fresh = rate;
    for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
        Port& port = ports_[hops_[hop].port];
        const double taken = hops_[hop].weight * rate;
        if (taken_) taken_->push_back({taken, hops_[hop].port});
        port.spare -= taken;
        port.weight -= hops_[hop].weight;
        --port.waiting;
    }
}

void Links::push_share(double share, int port) {
    std::size_t place = shares_.size();
    shares_.emplace_back();
    while (place > 0) {
        const std::size_t above = (place - 1) / 2;
        if (shares_[above].share <= share) break;
        shares_[place] = shares_[above];
        place = above;
    }
    shares_[place] = {share, port};
}

// Removes the first entry; the last one sinks to its place.
void Links::pop_share() {
    const Share last = shares_.back();
    shares_.pop_back();
    const std::size_t size = shares_.size();
    if (size == 0) return;
    std::size_t place = 0;
    while (true) {
        std::size_t below = 2 * place + 1;
        if (below >= size) break;
        if (below + 1 < size && shares_[below + 1].share < shares_[below].share) ++below;
        if (shares_[below].share >= last.share) break;
        shares_[place] = shares_[below];
        place = below;
    }
    shares_[place] = last;
}

}  // namespace mfs
