// Streams that are alike, as one row: they join and leave bundles, and end one by one.
//
// All members of a bundle have the same rate for as long as they are in it. So the bytes that each has been
// served since the bundle began are one number, `served`, and a member ends when that number has grown by what
// it had left when it joined. The row takes its rate once for each member on all its ports.
#include <algorithm>
#include <functional>
#include <limits>
#include <stdexcept>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

namespace {
constexpr double SLACK_NS = 1e-6;  // as in `links.cpp`
}  // namespace

int Links::add_member(const int* ports, int count, double size, Place place, double cap) {
    int number;
    if (free_members_.empty()) {
        number = rows();
        members_.emplace_back();
        wanted_.emplace_back();
    } else {
        number = free_members_.back();
        free_members_.pop_back();
    }
    const auto [path, is_new] =
        path_numbers_.try_emplace(std::vector<int>(ports, ports + count), static_cast<int>(paths_.size()));
    if (is_new) paths_.push_back(path->first);
    members_[number] = {size, begun_++, NONE, path->second};
    wanted_[number] = {place, cap};
    added_.push_back({number, place, cap});
    ++active_;
    return number;
}

void Links::join(Ns now, const Change& added) {
    Member& member = members_[added.stream];
    if (added.place.group != NO_GROUP && (is_weighted(added.place.level) || !ordered_ports_.empty())) {
        throw std::invalid_argument("there are no groups with weights of levels, or with ordered ports");
    }
    const int row = row_of(now, {member.path, added.place.level, added.place.order, added.cap, added.place.group});
    Bundle& bundle = bundles_[row];
    member.row = row;
    member.ends += bundle.served;
    bundle.members.insert({member.ends, added.stream});
    bundle.sum_of_ends += member.ends;
    resize(row, 1.0);
}

// Takes a member out of its bundle. What it has left is in `ends` then.
void Links::leave(Ns now, int number) {
    Member& member = members_[number];
    const int row = member.row;
    serve(now, row);
    Bundle& bundle = bundles_[row];
    const Stream& stream = streams_[row];
    const double left = member.ends - bundle.served;
    if (left < 0.0) {  // an end is rounded up to a whole nanosecond, so the bundle may be beyond it
        for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
            ports_[hops_[hop].port].sent[stream.level] += left;
        }
    }
    bundle.members.erase({member.ends, number});
    bundle.sum_of_ends -= member.ends;
    member.ends = std::max(0.0, left);
    member.row = NONE;
    resize(row, -1.0);
    if (bundle.members.empty()) free_row(row);
}

// The bundle for streams of this kind, brought up to `now`.
int Links::row_of(Ns now, const Alike& alike) {
    const auto [known, is_new] = rows_alike_.try_emplace(alike, NONE);
    if (!is_new) {
        serve(now, known->second);
        return known->second;
    }
    const auto& [path, level, order, cap, group] = alike;
    const std::vector<int>& ports = paths_[path];
    const int row = known->second = new_row(static_cast<int>(ports.size()));
    if (row >= static_cast<int>(bundles_.size())) bundles_.resize(row + 1);
    bundles_[row].served = 0.0;
    bundles_[row].first_end = bundles_[row].sum_of_ends = bundles_[row].size = 0.0;
    bundles_[row].alike = alike;
    Stream& stream = streams_[row];
    for (int i = 0; i < stream.hops; ++i) hops_[stream.first_hop + i] = {0.0, ports[i]};
    stream.left = 0.0;
    stream.since = now;
    stream.rate = 0.0;
    stream.level = level;
    stream.order = order;
    if (group == NO_GROUP) {
        ++ungrouped_[level];
    } else {
        std::vector<GroupPart>& parts = groups_[group].parts;
        auto part = std::ranges::find(parts, ports[0], &GroupPart::port);
        if (part == parts.end()) part = parts.insert(part, {ports[0], {}, {}});
        bundles_[row].part = static_cast<int>(part - parts.begin());
        bundles_[row].at = static_cast<int>(part->rows.size());
        part->rows.push_back({row, ports.back()});
        part->states.push_back({0.0, 0.0, 0.0, 0.0, now});
        groups_[group].plain = groups_[group].plain && stream.hops == 2 && cap == std::numeric_limits<double>::infinity();
        ++groups_[group].size;
        ++groups_[group].sizes[level];
    }
    stream.cap = cap;
    heap_places_[row] = NONE;
    serial_[row] = begun_++;
    enter_ports(row);
    return row;
}

// The bundle has so many members more.
void Links::resize(int row, double more) {
    const Stream& stream = streams_[row];
    for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) hops_[hop].weight += more;
    bundles_[row].size += more;
    note_state(row);
    touch(stream, stream.level);
    changes_from(stream.level, order_of(row));
    stale_.push_back(row);
}

void Links::free_row(int row) {
    Stream& stream = streams_[row];
    forget_end(row);
    leave_ports(row);
    const int group = std::get<4>(bundles_[row].alike);
    if (group == NO_GROUP) {
        --ungrouped_[stream.level];
    } else {
        --groups_[group].size;
        --groups_[group].sizes[stream.level];
        GroupPart& part = groups_[group].parts[bundles_[row].part];
        const int at = bundles_[row].at;
        part.rows[at] = part.rows.back();
        part.states[at] = part.states.back();
        bundles_[part.rows[at].row].at = at;
        part.rows.pop_back();
        part.states.pop_back();
    }
    rows_alike_.erase(bundles_[row].alike);
    stream.rate = 0.0;
    stream.level = NONE;
    free_[stream.hops].push_back(row);
    std::push_heap(free_[stream.hops].begin(), free_[stream.hops].end(), std::greater<>());
}

// --- ends ---------------------------------------------------------------------------------------------------

// Brings a bundle up to `now`.
void Links::serve(Ns now, int row) {
    Stream& stream = streams_[row];
    if (stream.since == now) return;
    if (stream.rate == 0.0) {
        stream.since = now;
        return;
    }
    const double bytes = stream.rate * static_cast<double>(now - stream.since);
    for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
        ports_[hops_[hop].port].sent[stream.level] += hops_[hop].weight * bytes;
    }
    Bundle& bundle = bundles_[row];
    bundle.served += bytes;
    stream.left = bundle.first_end - bundle.served;
    stream.since = now;
}

// `take_finished` for bundles.
void Links::end_members(Ns now, std::vector<int>& out) {
    const std::size_t begin = out.size();
    while (!heap_.empty() && heap_[0].end <= now) {
        const int row = heap_[0].stream;
        forget_end(row);
        serve(now, row);
        Bundle& bundle = bundles_[row];
        Stream& stream = streams_[row];
        const double through = bundle.served + SLACK_NS * stream.rate;
        double beyond = 0.0;
        double ended = 0.0;
        do {
            const auto first = bundle.members.begin();
            beyond += first->first - bundle.served;
            bundle.sum_of_ends -= first->first;
            ++ended;
            members_[first->second].row = NONE;
            members_[first->second].ends = 0.0;
            out.push_back(first->second);
            bundle.members.erase(first);
        } while (!bundle.members.empty() && bundle.members.begin()->first <= through);
        for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
            ports_[hops_[hop].port].sent[stream.level] += beyond;
        }
        resize(row, -ended);
        if (bundle.members.empty()) free_row(row);
    }
    std::sort(out.begin() + begin, out.end(),
              [this](int a, int b) { return members_[a].serial < members_[b].serial; });
    free_members_.insert(free_members_.end(), out.begin() + begin, out.end());
    active_ -= static_cast<int>(out.size() - begin);
    std::erase_if(moved_, [this](const Change& moved) { return members_[moved.stream].row == NONE; });
}

// Foresees the next end of each bundle that has other members than before.
void Links::foresee_bundles(Ns now) {
    for (const int row : stale_) {
        if (streams_[row].level == NONE) continue;
        serve(now, row);
        note_state(row);
        Bundle& bundle = bundles_[row];
        bundle.first_end = bundle.members.begin()->first;
        streams_[row].left = bundle.first_end - bundle.served;
        foresee(now, row);
    }
    stale_.clear();
}

double Links::left_of(const Member& member, Ns now) const {
    if (member.row == NONE) return member.ends;
    const Stream& stream = streams_[member.row];
    const double served = bundles_[member.row].served + stream.rate * static_cast<double>(now - stream.since);
    return std::max(0.0, member.ends - served);
}

}  // namespace mfs
