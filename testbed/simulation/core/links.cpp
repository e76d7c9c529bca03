// Streams on ports: their rows, their lists, and when they end. `sharing.cpp` works out the rates.
//
// Each port has a doubly linked list of hops for each level, and the ends of streams are in a binary heap. So
// the cost of an event depends on what it touches, not on how many streams there are.
#include "testbed/simulation/core/links.hpp"

#include <algorithm>
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

void check_level(int level) {
    if (level < 0 || level >= LEVELS) throw std::out_of_range("there is no level " + std::to_string(level));
}

}  // namespace

Links::Links(std::vector<double> capacity, double guarantee) : guarantee_(guarantee) {
    ports_.reserve(capacity.size());
    for (const double rate : capacity) {
        if (!(rate > 0.0)) throw std::invalid_argument("a port needs a rate above 0");
        Port& port = ports_.emplace_back();
        port.capacity = rate;
        port.dirty = LEVELS;
        std::fill_n(port.first_hop, LEVELS, NONE);
    }
}

// --- changes ------------------------------------------------------------------------------------------------

int Links::add(const int* ports, int count, double size, Place place, double cap, const double* weights) {
    check_level(place.level);
    if (!(size > 0.0)) throw std::invalid_argument("a stream needs more than 0 bytes");
    for (int i = 0; i < count; ++i) {
        if (ports[i] < 0 || ports[i] >= this->ports()) {
            throw std::out_of_range("there is no port " + std::to_string(ports[i]));
        }
        if (weights && !(weights[i] > 0.0)) throw std::invalid_argument("a weight has to be above 0");
    }
    if (count >= static_cast<int>(free_.size())) free_.resize(count + 1);
    std::vector<int>& free = free_[count];
    int number;
    if (free.empty()) {
        number = new_row(count);
    } else {
        number = free.back();
        free.pop_back();
    }
    Stream& stream = streams_[number];
    stream.left = size;
    stream.wanted = place;
    stream.wanted_cap = cap;
    for (int i = 0; i < count; ++i) {
        Hop& hop = hops_[stream.first_hop + i];
        hop.port = ports[i];
        hop.weight = weights ? weights[i] : 1.0;
    }
    added_.push_back({number, place, cap});
    ++active_;
    return number;
}

int Links::new_row(int hops) {
    const int number = rows();
    Stream& stream = streams_.emplace_back();
    stream.first_hop = static_cast<int>(hops_.size());
    stream.hops = hops;
    stream.level = NONE;
    hops_.resize(hops_.size() + hops);
    for (int hop = stream.first_hop; hop < stream.first_hop + hops; ++hop) hops_[hop].stream = number;
    return number;
}

void Links::move(int stream, Place place, double cap) {
    Stream& standing = streams_[stream];
    if (standing.wanted == place && standing.wanted_cap == cap) return;
    check_level(place.level);
    standing.wanted = place;
    standing.wanted_cap = cap;
    moved_.push_back({stream, place, cap});
}

void Links::take_in(Ns now) {
    for (const Change& added : added_) enter(now, added);
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
    stream.serial = serial_++;
    stream.heap_place = NONE;
    link(stream);
    touch(stream, stream.level);
}

void Links::shift(Ns now, const Change& moved) {
    Stream& stream = streams_[moved.stream];
    bring_up_to(now, stream);
    touch(stream, stream.level);
    unlink(stream);
    stream.level = moved.place.level;
    stream.order = moved.place.order;
    stream.cap = moved.cap;
    link(stream);
    touch(stream, stream.level);
}

void Links::take_finished(Ns now, std::vector<int>& out) {
    if (now < next_ns_) return;
    changed_ = true;
    const std::size_t begin = out.size();
    while (!heap_.empty() && streams_[heap_[0]].end <= now) {
        const int number = heap_[0];
        Stream& stream = streams_[number];
        forget_end(number);
        for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
            ports_[hops_[hop].port].sent[stream.level] += hops_[hop].weight * stream.left;
        }
        stream.left = 0.0;
        stream.rate = 0.0;
        unlink(stream);
        touch(stream, stream.level);
        stream.level = NONE;
        out.push_back(number);
    }
    std::sort(out.begin() + begin, out.end(), [this](int a, int b) {
        return streams_[a].serial < streams_[b].serial;
    });
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
    next_ns_ = heap_.empty() ? NEVER : streams_[heap_[0]].end;
}

// --- lists --------------------------------------------------------------------------------------------------

void Links::link(const Stream& stream) {
    for (int number = stream.first_hop; number < stream.first_hop + stream.hops; ++number) {
        Hop& hop = hops_[number];
        int& head = ports_[hop.port].first_hop[stream.level];
        hop.following = head;
        hop.previous = NONE;
        if (head != NONE) hops_[head].previous = number;
        head = number;
    }
}

void Links::unlink(const Stream& stream) {
    for (int number = stream.first_hop; number < stream.first_hop + stream.hops; ++number) {
        const Hop& hop = hops_[number];
        if (hop.previous == NONE) {
            ports_[hop.port].first_hop[stream.level] = hop.following;
        } else {
            hops_[hop.previous].following = hop.following;
        }
        if (hop.following != NONE) hops_[hop.following].previous = hop.previous;
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

void Links::bring_up_to(Ns now, Stream& stream) {
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

bool Links::sooner(int a, int b) const {
    const Stream& first = streams_[a];
    const Stream& second = streams_[b];
    return first.end != second.end ? first.end < second.end : first.serial < second.serial;
}

void Links::rise(int place) {
    const int stream = heap_[place];
    while (place > 0) {
        const int above = (place - 1) / 2;
        if (!sooner(stream, heap_[above])) break;
        heap_[place] = heap_[above];
        streams_[heap_[place]].heap_place = place;
        place = above;
    }
    heap_[place] = stream;
    streams_[stream].heap_place = place;
}

void Links::sink(int place) {
    const int stream = heap_[place];
    const int size = static_cast<int>(heap_.size());
    while (true) {
        int below = 2 * place + 1;
        if (below >= size) break;
        if (below + 1 < size && sooner(heap_[below + 1], heap_[below])) ++below;
        if (!sooner(heap_[below], stream)) break;
        heap_[place] = heap_[below];
        streams_[heap_[place]].heap_place = place;
        place = below;
    }
    heap_[place] = stream;
    streams_[stream].heap_place = place;
}

void Links::forget_end(int stream) {
    const int place = streams_[stream].heap_place;
    if (place == NONE) return;
    streams_[stream].heap_place = NONE;
    const int moved = heap_.back();
    heap_.pop_back();
    if (moved == stream) return;
    heap_[place] = moved;
    rise(place);
    sink(streams_[moved].heap_place);
}

void Links::foresee(Ns now, int number) {
    Stream& stream = streams_[number];
    // Written so that a rate that is not a number, which would be a mistake of ours, never ends either.
    const double takes_ns = stream.rate > 0.0 ? stream.left / stream.rate - SLACK_NS : 2 * FOREVER_NS;
    if (!(takes_ns <= FOREVER_NS)) {
        stream.end = NEVER;
        forget_end(number);
        return;
    }
    stream.end = now + std::max<Ns>(0, rounded_up(takes_ns));
    if (stream.heap_place == NONE) {
        stream.heap_place = static_cast<int>(heap_.size());
        heap_.push_back(number);
    }
    rise(stream.heap_place);
    sink(stream.heap_place);
}

}  // namespace mfs
