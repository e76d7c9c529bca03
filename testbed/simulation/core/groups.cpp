// Bundles that have one order together, as those of a coflow, and that are worked out one order after the other.
//
// A group can have tens of thousands of rows, of which most wait behind full ports. What its rows need for their turn
// is therefore kept in its parts, one next to the other: rows themselves lie scattered in memory.
#include <algorithm>
#include <stdexcept>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

int Links::add_group(double order) {
    if (!bundled_) throw std::logic_error("only bundles are in groups");
    if (free_groups_.empty()) {
        groups_.push_back({order, 0, {}, true, {}});
        return static_cast<int>(groups_.size()) - 1;
    }
    const int group = free_groups_.back();
    free_groups_.pop_back();
    groups_[group] = {order, 0, {}, true, {}};
    return group;
}

void Links::drop_group(int group) {
    if (groups_[group].size > 0) throw std::logic_error("a group that is dropped has streams");
    free_groups_.push_back(group);
}

void Links::set_order(int group, double order) {
    OrderedGroup& moved = groups_[group];
    const double before = moved.order;
    moved.order = order;
    // Rates depend on who goes before whom, and not on by how much.
    const auto [least, most] = std::minmax(before, order);
    bool overtakes = false;
    for (const OrderedGroup& other : groups_) {
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

// Tells the part of a row, if it has one, how the row moves from now on.
void Links::note_state(int row) {
    const Bundle& bundle = bundles_[row];
    const int group = std::get<4>(bundle.alike);
    if (streams_[row].level == NONE || group == NO_GROUP) return;
    const Stream& stream = streams_[row];
    groups_[group].parts[bundle.part].states[bundle.at] = {bundle.size, stream.rate, bundle.served,
                                                           bundle.sum_of_ends, stream.since};
}

void Links::add_left_on_ports(int number, Ns now, double* out) const {
    const OrderedGroup& group = groups_[number];
    const auto left = [now](const RowState& state) {
        const double served = state.served + state.rate * static_cast<double>(now - state.since);
        return std::max(0.0, state.sum_of_ends - state.members * served);
    };
    for (const GroupPart& part : group.parts) {
        if (group.plain) {
            double first = out[part.port];  // in a register, because no row crosses a port twice
            for (std::size_t at = 0; at < part.rows.size(); ++at) {
                const double bytes = left(part.states[at]);
                first += bytes;
                out[part.rows[at].last] += bytes;
            }
            out[part.port] = first;
            continue;
        }
        for (std::size_t at = 0; at < part.rows.size(); ++at) {
            const double bytes = left(part.states[at]);
            const Stream& stream = streams_[part.rows[at].row];
            for (int hop = stream.first_hop; hop < stream.first_hop + stream.hops; ++hop) {
                out[hops_[hop].port] += bytes;
            }
        }
    }
    for (const Change& added : added_) {
        const Member& member = members_[added.stream];
        if (added.place.group != number || member.row != NONE) continue;
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
    full_.resize(ports_.size());
    for (std::size_t port = 0; port < ports_.size(); ++port) full_[port] = is_full(ports_[port]);
    by_order_.clear();
    for (std::size_t group = 0; group < groups_.size(); ++group) {
        const OrderedGroup& one = groups_[group];
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
    const std::size_t taken = last.taken.size();
    const bool plain = std::all_of(by_order_.begin() + begin, by_order_.begin() + end, [&](const Ordered& one) {
        return groups_[one.at].plain && groups_[one.at].sizes[level] == groups_[one.at].size;
    });
    if (plain && !last.missed) {
        take_plain_turn(last, begin, end);
        end_turn(last, level, by_order_[begin].key, taken);
        return;
    }
    group_.clear();
    for (std::size_t at = begin; at < end; ++at) {
        const OrderedGroup& group = groups_[by_order_[at].at];
        const bool all = group.sizes[level] == group.size;
        for (const GroupPart& part : group.parts) {
            if (!last.missed && full_[part.port]) continue;
            for (const auto& [row, last_port] : part.rows) {
                if (!last.missed && full_[last_port]) continue;
                if (all || streams_[row].level == level) group_.push_back(row);
            }
        }
    }
    share(group_.data(), group_.data() + group_.size(), level, !last.missed);
    worked_out_ += static_cast<std::int64_t>(group_.size());
    for (const int row : group_) {
        const Stream& stream = streams_[row];
        seen_[row] = epoch_;
        if (stream.fresh != stream.rate) affected_.push_back(row);
        if (stream.fresh != 0.0) last.moving.push_back(row);
    }
    end_turn(last, level, by_order_[begin].key, taken);
}

// An order has taken what it takes of ports, from `taken` on.
void Links::end_turn(Turns& last, int level, double order, std::size_t taken) {
    for (std::size_t at = taken; at < last.taken.size(); ++at) {
        Port& port = ports_[last.taken[at].port];
        port.used[level] += last.taken[at].rate;
        full_[last.taken[at].port] = is_full(port);
    }
    last.turns.push_back({order, last.moving.size(), last.taken.size()});
}

// `take_turn` for plain groups that are on this level only. Reads no stream, and writes those whose rate changes.
void Links::take_plain_turn(Turns& last, std::size_t begin, std::size_t end) {
    pairs_.clear();
    for (std::size_t at = begin; at < end; ++at) {
        for (const GroupPart& part : groups_[by_order_[at].at].parts) {
            if (full_[part.port]) continue;
            for (std::size_t i = 0; i < part.rows.size(); ++i) {
                const auto& [row, last_port] = part.rows[i];
                if (full_[last_port]) continue;
                const RowState& state = part.states[i];
                pairs_.push_back({-1.0, state.members, state.rate, row, {part.port, last_port}, {NONE, NONE}});
            }
        }
    }
    share_pairs();
    worked_out_ += static_cast<std::int64_t>(pairs_.size());
    for (const Pair& pair : pairs_) {
        seen_[pair.row] = epoch_;
        if (pair.fresh != pair.rate) {
            streams_[pair.row].fresh = pair.fresh;
            affected_.push_back(pair.row);
        }
        if (pair.fresh != 0.0) last.moving.push_back(pair.row);
    }
}

// `share` for `pairs_`, whose ports are not full: the same steps in the same sequence, without caps.
void Links::share_pairs() {
    open_.clear();
    shares_.clear();
    for (std::size_t at = 0; at < pairs_.size(); ++at) {
        Pair& pair = pairs_[at];
        for (int end = 0; end < 2; ++end) {
            Port& port = ports_[pair.ports[end]];
            if (port.waiting == 0) {
                port.weight = 0.0;
                port.chain = NONE;
                open_.push_back(pair.ports[end]);
            }
            pair.before[end] = port.chain;
            port.chain = static_cast<int>(2 * at) + end;
            ++port.waiting;
            port.weight += pair.members;
        }
    }
    for (const int port : open_) push_share(ports_[port].spare / ports_[port].weight, port);
    for (Bottleneck next = next_bottleneck(); next.port != NONE; next = next_bottleneck()) {
        settle_pairs(ports_[next.port], next.now);
    }
}

// Settles what is still waiting on a port at this rate.
void Links::settle_pairs(Port& port, double rate) {
    for (int link = port.chain; link != NONE && port.waiting > 0;) {
        Pair& pair = pairs_[link / 2];
        link = pair.before[link % 2];
        if (pair.fresh >= 0.0) continue;
        pair.fresh = rate;
        const double takes = pair.members * rate;
        for (const int number : pair.ports) {
            Port& crossed = ports_[number];
            taken_->push_back({takes, number});
            crossed.spare -= takes;
            crossed.weight -= pair.members;
            --crossed.waiting;
        }
    }
}

}  // namespace mfs
