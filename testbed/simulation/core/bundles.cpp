// Streams that are alike, as one row: they join and leave bundles, and end one by one.
//
// All members of a bundle have the same rate for as long as they are in it. So the bytes that each has been
// served since the bundle began are one number, `served`, and a member ends when that number has grown by what
// it had left when it joined. The row takes its rate once for each member on all its ports.
#include <algorithm>
#include <stdexcept>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

namespace {
constexpr double SLACK_NS = 1e-6;  // as in `links.cpp`
constexpr std::size_t AHEAD = 12;  // rows lie scattered in memory, so it is asked for them so many rows before their turn
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
        if (part == parts.end()) part = parts.insert(part, {ports[0], {}});
        bundles_[row].part = static_cast<int>(part - parts.begin());
        bundles_[row].at = static_cast<int>(part->rows.size());
        part->rows.push_back({row, ports.back()});
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
        std::vector<GroupRow>& rows = groups_[group].parts[bundles_[row].part].rows;
        const int at = bundles_[row].at;
        rows[at] = rows.back();
        bundles_[rows[at].row].at = at;
        rows.pop_back();
    }
    rows_alike_.erase(bundles_[row].alike);
    stream.rate = 0.0;
    stream.level = NONE;
    free_[stream.hops].push_back(row);
}

// --- groups -------------------------------------------------------------------------------------------------

int Links::add_group(double order) {
    if (!bundled_) throw std::logic_error("only bundles are in groups");
    if (free_groups_.empty()) {
        groups_.push_back({order, 0, {}, {}});
        return static_cast<int>(groups_.size()) - 1;
    }
    const int group = free_groups_.back();
    free_groups_.pop_back();
    groups_[group] = {order, 0, {}, {}};
    return group;
}

void Links::drop_group(int group) {
    if (groups_[group].size > 0) throw std::logic_error("a group that is dropped has streams");
    free_groups_.push_back(group);
}

void Links::set_order(int group, double order) {
    Group& moved = groups_[group];
    const double before = moved.order;
    moved.order = order;
    // Rates depend on who goes before whom, and not on by how much.
    const auto [least, most] = std::minmax(before, order);
    bool overtakes = false;
    for (const Group& other : groups_) {
        overtakes = overtakes || (&other != &moved && other.size > 0 && least <= other.order && other.order <= most);
    }
    for (int level = 0; level < LEVELS; ++level) {
        if (moved.sizes[level] == 0) continue;
        if (ungrouped_[level] > 0) {
            for (const GroupPart& part : moved.parts) {
                for (const auto& [row, last] : part.rows) {
                    if (streams_[row].level == level) touch(streams_[row], level);
                }
            }
            changed_ = true;
        } else if (overtakes) {
            changes_from(level, least);
            changed_ = true;
        } else {
            Turns& last = turns_[level];
            if (last.first <= before) changes_from(level, order);
            for (Turn& turn : last.turns) {
                if (turn.order == before) turn.order = order;
            }
        }
    }
}

// What `share_groups` last worked out for a level holds no more from this order on.
void Links::changes_from(int level, double order) { turns_[level].first = std::min(turns_[level].first, order); }

void Links::add_left_on_ports(int group, Ns now, double* out) const {
    for (const GroupPart& part : groups_[group].parts) {
        for (std::size_t at = 0; at < part.rows.size(); ++at) {
            if (at + AHEAD < part.rows.size()) {
                __builtin_prefetch(&streams_[part.rows[at + AHEAD].row]);
                __builtin_prefetch(&bundles_[part.rows[at + AHEAD].row]);
            }
            const auto& [row, last] = part.rows[at];
            const Stream& stream = streams_[row];
            const Bundle& bundle = bundles_[row];
            const double served = bundle.served + stream.rate * static_cast<double>(now - stream.since);
            const double left = std::max(0.0, bundle.sum_of_ends - bundle.size * served);
            if (stream.hops == 2) {  // spares their memory
                out[part.port] += left;
                out[last] += left;
                continue;
            }
            for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
                out[hops_[hop].port] += left;
            }
        }
    }
    for (const Change& added : added_) {
        const Member& member = members_[added.stream];
        if (added.place.group != group || member.row != NONE) continue;
        for (const int port : paths_[member.path]) out[port] += member.ends;
    }
}

// Works out the streams of a level on which all are in groups, one order after the other, from the first order that
// has changed. Leaves in `affected_` those whose rate changes, and returns whether there was anything to do.
bool Links::share_groups(int level) {
    affected_.clear();
    queue_.clear();
    Turns& last = turns_[level];
    const bool from_start = last.missed || std::ranges::any_of(dirty_, [&](int port) {
        return ports_[port].dirty < level || guarantee_ > 0.0;
    });
    if (from_start) last.first = -NO_ORDER;
    if (last.first == NO_ORDER) return false;
    const auto kept = std::ranges::find_if(last.turns, [&](const Turn& turn) { return turn.order >= last.first; });
    last.turns.erase(kept, last.turns.end());
    const std::size_t moving = last.turns.empty() ? 0 : last.turns.back().moving;
    moved_before_.assign(last.moving.begin() + moving, last.moving.end());
    last.moving.resize(moving);
    last.taken.resize(last.turns.empty() ? 0 : last.turns.back().taken);

    for (Port& port : ports_) {
        port.used[level] = 0.0;
        if (!port.guests[level].empty()) open_port(port, level);
    }
    for (const auto& [rate, port] : last.taken) {
        ports_[port].spare -= rate;
        ports_[port].used[level] += rate;
    }
    by_order_.clear();
    for (std::size_t group = 0; group < groups_.size(); ++group) {
        const Group& one = groups_[group];
        if (one.sizes[level] > 0 && one.order >= last.first) {
            by_order_.push_back({one.order, static_cast<int>(group), 0});
        }
    }
    std::sort(by_order_.begin(), by_order_.end());
    ++epoch_;
    taken_ = &last.taken;
    for (std::size_t begin = 0, end = 0; begin < by_order_.size(); begin = end) {
        while (end < by_order_.size() && by_order_[end].key == by_order_[begin].key) ++end;
        take_turn(last, level, begin, end);
    }
    taken_ = nullptr;
    for (const int row : moved_before_) {
        Stream& stream = streams_[row];
        if (seen_[row] == epoch_ || stream.level != level || stream.rate == 0.0) continue;
        seen_[row] = epoch_;
        stream.fresh = 0.0;
        affected_.push_back(row);
    }
    last.first = NO_ORDER;
    last.missed = false;
    return true;
}

// Works out the groups from `begin` to `end` in `by_order_`, which have one order. Does not look at streams that
// wait behind a full first or last port, and have waited before.
void Links::take_turn(Turns& last, int level, std::size_t begin, std::size_t end) {
    group_.clear();
    for (std::size_t at = begin; at < end; ++at) {
        const Group& group = groups_[by_order_[at].at];
        const bool all = group.sizes[level] == group.size;
        for (const GroupPart& part : group.parts) {
            if (!last.missed && is_full(ports_[part.port])) continue;
            for (const auto& [row, last_port] : part.rows) {
                if (!last.missed && is_full(ports_[last_port])) continue;
                if (all || streams_[row].level == level) group_.push_back(row);
            }
        }
    }
    const std::size_t taken = last.taken.size();
    share(group_.data(), group_.data() + group_.size(), level, !last.missed);
    worked_out_ += static_cast<std::int64_t>(group_.size());
    for (std::size_t at = taken; at < last.taken.size(); ++at) {
        ports_[last.taken[at].port].used[level] += last.taken[at].rate;
    }
    for (const int row : group_) {
        const Stream& stream = streams_[row];
        seen_[row] = epoch_;
        if (stream.fresh != stream.rate) affected_.push_back(row);
        if (stream.fresh != 0.0) last.moving.push_back(row);
    }
    last.turns.push_back({by_order_[begin].key, last.moving.size(), last.taken.size()});
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
