// Streams on ports: their rows, their lists, and when they end. `sharing.cpp` works out the rates.
//
// Each port has a list of streams for each level, and the ends of streams are in a binary heap. So the cost of an
// event depends on what it touches, not on how many streams there are.
#include "testbed/simulation/core/links.hpp"

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>

namespace mfs {

namespace {

constexpr double SLACK_NS = 1e-6;    // bytes that only rounding has left over do not take a nanosecond more
constexpr double FOREVER_NS = 9e17;  // 28 years; a 64-bit clock in nanoseconds ends after 292

Ns rounded_up(double ns) {
    const Ns whole = static_cast<Ns>(ns);
    return whole + (static_cast<double>(whole) < ns);
}

}  // namespace

Links::Links(std::vector<double> capacity, double guarantee, bool bundled, const std::vector<double>& level_weights,
             std::vector<int> ordered_ports)
    : guarantee_(guarantee), bundled_(bundled), ordered_ports_(std::move(ordered_ports)) {
    if (!ordered_ports_.empty() && ordered_ports_.size() != capacity.size()) {
        throw std::invalid_argument("every port needs to be ordered or not");
    }
    if (!level_weights.empty() && level_weights.size() != LEVELS) {
        throw std::invalid_argument("every level needs a weight, which may be 0");
    }
    for (int level = 0; level < static_cast<int>(level_weights.size()); ++level) {
        const double weight = level_weights_[level] = level_weights[level];
        if (!(weight >= 0.0 && weight < FOREVER_NS)) throw std::invalid_argument("a level needs a weight of 0 or more");
        if (weight == 0.0) continue;
        first_weighted_ = std::min(first_weighted_, level);
        last_weighted_ = level;
    }
    ports_.reserve(capacity.size());
    for (const double rate : capacity) {
        if (!(rate > 0.0)) throw std::invalid_argument("a port needs a rate above 0");
        Port& port = ports_.emplace_back();
        port.capacity = rate;
        port.dirty = LEVELS;
    }
}

// --- changes ------------------------------------------------------------------------------------------------

void Links::check_level(int level) const {
    if (level < 0 || level >= LEVELS) throw std::out_of_range("there is no level " + std::to_string(level));
    if (is_weighted(level) && level_weights_[level] == 0.0) {
        throw std::out_of_range("level " + std::to_string(level) + " has no weight");
    }
}

int Links::add(const int* ports, int count, double size, Place place, double cap, const double* weights) {
    check_level(place.level);
    if (!(size > 0.0)) throw std::invalid_argument("a stream needs more than 0 bytes");
    for (int i = 0; i < count; ++i) {
        if (ports[i] < 0 || ports[i] >= this->ports()) {
            throw std::out_of_range("there is no port " + std::to_string(ports[i]));
        }
        if (weights && !(weights[i] > 0.0)) throw std::invalid_argument("a weight has to be above 0");
    }
    if (bundled_) {
        if (weights) throw std::invalid_argument("a stream of a bundle has no weights");
        return add_member(ports, count, size, place, cap);
    }
    const int number = new_row(count);
    Stream& stream = streams_[number];
    stream.left = size;
    if (number >= static_cast<int>(wanted_.size())) wanted_.resize(number + 1);
    wanted_[number] = {place, cap};
    for (int i = 0; i < count; ++i) {
        Hop& hop = hops_[stream.first_hop + i];
        hop.port = ports[i];
        hop.weight = weights ? weights[i] : 1.0;
    }
    added_.push_back({number, place, cap});
    ++active_;
    return number;
}

// A free row of so many hops, or one more.
int Links::new_row(int hops) {
    if (hops >= static_cast<int>(free_.size())) free_.resize(hops + 1);
    std::vector<int>& free = free_[hops];
    if (!free.empty()) {
        // Bundles that come together are worked out together, so they take neighbouring rows where there are any.
        if (bundled_) std::pop_heap(free.begin(), free.end(), std::greater<>());
        const int number = free.back();
        free.pop_back();
        return number;
    }
    const int number = static_cast<int>(streams_.size());
    seen_.push_back(0);
    serial_.push_back(0);
    heap_places_.push_back(NONE);
    Stream& stream = streams_.emplace_back();
    stream.first_hop = static_cast<int>(hops_.size());
    stream.hops = hops;
    stream.level = NONE;
    hops_.resize(hops_.size() + hops);
    return number;
}

void Links::move(int stream, Place place, double cap) {
    const Wanted wanted{place, cap};
    if (wanted_[stream] == wanted) return;
    check_level(place.level);
    wanted_[stream] = wanted;
    moved_.push_back({stream, place, cap});
}

void Links::set_capacity(int number, double rate) {
    if (!(rate >= 0.0)) throw std::invalid_argument("a port needs a rate of 0 or more");
    Port& port = ports_[number];
    if (port.capacity == rate) return;
    port.capacity = rate;
    if (port.dirty == LEVELS) dirty_.push_back(number);
    port.dirty = 0;
    for (int level = 0; level < LEVELS; ++level) changes_from(level, -NO_ORDER);
    changed_ = true;
}

void Links::take_in(Ns now) {
    for (const Change& added : added_) bundled_ ? join(now, added) : enter(now, added);
    for (const Change& moved : moved_) shift(now, moved);
    added_.clear();
    moved_.clear();
}

void Links::enter(Ns now, const Change& added) {
    Stream& stream = streams_[added.stream];
    stream.since = now;
    stream.rate = 0.0;
    stream.level = added.place.level;
    stream.order = added.place.order;
    stream.cap = added.cap;
    serial_[added.stream] = begun_++;
    heap_places_[added.stream] = NONE;
    enter_ports(added.stream);
    touch(stream, stream.level);
}

void Links::shift(Ns now, const Change& moved) {
    if (bundled_) {
        leave(now, moved.stream);
        join(now, moved);
        return;
    }
    Stream& stream = streams_[moved.stream];
    bring_up_to(now, moved.stream);
    touch(stream, stream.level);
    leave_ports(moved.stream);
    stream.level = moved.place.level;
    stream.order = moved.place.order;
    stream.cap = moved.cap;
    enter_ports(moved.stream);
    touch(stream, stream.level);
}

void Links::take_finished(Ns now, std::vector<int>& out) {
    if (now < next_ns_) return;
    changed_ = true;
    if (bundled_) {
        end_members(now, out);
        return;
    }
    const std::size_t begin = out.size();
    while (!heap_.empty() && heap_[0].end <= now) {
        const int number = heap_[0].stream;
        Stream& stream = streams_[number];
        forget_end(number);
        for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
            ports_[hops_[hop].port].sent[stream.level] += hops_[hop].weight * stream.left;
        }
        stream.left = 0.0;
        stream.rate = 0.0;
        leave_ports(number);
        touch(stream, stream.level);
        stream.level = NONE;
        out.push_back(number);
    }
    std::sort(out.begin() + begin, out.end(), [this](int a, int b) { return serial_[a] < serial_[b]; });
    for (std::size_t i = begin; i < out.size(); ++i) free_[streams_[out[i]].hops].push_back(out[i]);
    active_ -= static_cast<int>(out.size() - begin);
    // Their numbers may be given to others before `settle`, which a move that came too late must not reach.
    std::erase_if(moved_, [this](const Change& moved) { return streams_[moved.stream].level == NONE; });
}

void Links::settle(Ns now) {
    if (added_.empty() && moved_.empty() && !changed_) return;
    changed_ = false;
    take_in(now);
    work_out(now);
    if (bundled_) foresee_bundles(now);
    next_ns_ = heap_.empty() ? NEVER : heap_[0].end;
}

// --- ports --------------------------------------------------------------------------------------------------

void Links::enter_ports(int number) {
    const Stream& stream = streams_[number];
    for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
        ports_[hops_[hop].port].guests[stream.level].push_back({number, hop});
    }
}

// The others keep their order. `settle` walks over all of them next, so to look for one costs little.
void Links::leave_ports(int number) {
    const Stream& stream = streams_[number];
    for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
        std::vector<Guest>& guests = ports_[hops_[hop].port].guests[stream.level];
        guests.erase(std::ranges::find(guests, hop, &Guest::hop));
    }
}

// Marks the ports of `stream`: `level` and all levels below it are to be shared anew.
void Links::touch(const Stream& stream, int level) {
    for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
        Port& port = ports_[hops_[hop].port];
        if (port.dirty == LEVELS) dirty_.push_back(hops_[hop].port);
        port.dirty = std::min(port.dirty, level);
    }
}

void Links::bring_up_to(Ns now, int number) {
    if (bundled_) {
        serve(now, number);
        return;
    }
    Stream& stream = streams_[number];
    const double left = stream.left;
    const double now_left = std::max(0.0, left - stream.rate * static_cast<double>(now - stream.since));
    if (now_left != left) {
        for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
            ports_[hops_[hop].port].sent[stream.level] += hops_[hop].weight * (left - now_left);
        }
    }
    stream.left = now_left;
    stream.since = now;
}

// --- ends ---------------------------------------------------------------------------------------------------

void Links::rise(int place) {
    const End end = heap_[place];
    while (place > 0) {
        const int above = (place - 1) / 2;
        if (!(end < heap_[above])) break;
        heap_[place] = heap_[above];
        heap_places_[heap_[place].stream] = place;
        place = above;
    }
    heap_[place] = end;
    heap_places_[end.stream] = place;
}

void Links::sink(int place) {
    const End end = heap_[place];
    const int size = static_cast<int>(heap_.size());
    while (true) {
        int below = 2 * place + 1;
        if (below >= size) break;
        if (below + 1 < size && heap_[below + 1] < heap_[below]) ++below;
        if (!(heap_[below] < end)) break;
        heap_[place] = heap_[below];
        heap_places_[heap_[place].stream] = place;
        place = below;
    }
    heap_[place] = end;
    heap_places_[end.stream] = place;
}

void Links::forget_end(int stream) {
    const int place = heap_places_[stream];
    if (place == NONE) return;
    heap_places_[stream] = NONE;
    const End last = heap_.back();
    heap_.pop_back();
    if (last.stream == stream) return;
    heap_[place] = last;
    rise(place);
    sink(heap_places_[last.stream]);
}

void Links::foresee(Ns now, int number) {
    set_end(now, number);
    const int place = heap_places_[number];
    if (place == NONE) return;
    rise(place);
    sink(heap_places_[number]);
}

// Notes when a stream ends, and leaves the order of the ends to the caller.
void Links::set_end(Ns now, int number) {
    Stream& stream = streams_[number];
    // Written so that a rate that is not a number, which would be a mistake of ours, never ends either.
    const double takes_ns = stream.rate > 0.0 ? stream.left / stream.rate - SLACK_NS : 2 * FOREVER_NS;
    if (!(takes_ns <= FOREVER_NS)) {
        forget_end(number);
        return;
    }
    const End end{now + std::max<Ns>(0, rounded_up(takes_ns)), serial_[number], number};
    int& place = heap_places_[number];
    if (place == NONE) {
        place = static_cast<int>(heap_.size());
        heap_.push_back(end);
    } else {
        heap_[place] = end;
    }
}

// Puts all ends in order.
void Links::order_ends() {
    for (int place = static_cast<int>(heap_.size()) / 2; place-- > 0;) sink(place);
}

}  // namespace mfs
