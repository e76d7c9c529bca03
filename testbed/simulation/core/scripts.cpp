// What the members of a collective send: worked out once for all layers that are alike.
#include "testbed/simulation/core/exchanges.hpp"

namespace mfs {

std::shared_ptr<Script> Exchanges::script(Collective& step) {
    auto& known = scripts_[static_cast<std::uint64_t>(step.group) << 32 | static_cast<std::uint64_t>(step.label)];
    const nb::object sizes = get<"sizes">(step.object);
    if (known != nullptr && (known->sizes.is(sizes) || known->sizes.equal(sizes))) {
        return known;
    }
    Group& group = groups_[step.group];
    const int members = static_cast<int>(group.ranks.size());
    const nb::object said = world_.host.structure(step.object, members);
    auto made = std::make_shared<Script>();
    made->sizes = sizes;
    made->structure = structure(said[0]);
    made->even = nb::cast<bool>(said[2]);
    const auto parts = nb::cast<std::vector<std::int64_t>>(said[1]);
    const auto& rounds = made->structure->rounds;
    made->totals.assign(group.ranks.size(), std::vector<std::int64_t>(group.ranks.size(), -1));
    for (int index = 0; index < members; ++index) {
        for (const int peer : made->structure->order[index]) {
            made->totals[index][peer] = 0;
        }
    }
    // Ring attention has one more block to compute over when nothing is left to send.
    const std::size_t count = step.round_seconds.empty() ? rounds.size() : step.round_seconds[0].size();
    made->rounds.resize(std::max<std::size_t>(1, count));
    for (std::size_t number = 0; number < made->rounds.size(); ++number) {
        made->rounds[number].resize(group.ranks.size());
        if (number >= rounds.size()) {
            continue;
        }
        for (int index = 0; index < members; ++index) {
            const Structure::Round& round = rounds[number][index];
            Script::Round& sized = made->rounds[number][index];
            sized.expected = round.expected;
            for (const auto& [peer, part] : round.first) {
                sized.first.emplace_back(peer, parts[part]);
                made->totals[index][peer] += parts[part];
            }
            for (const auto& [peer, part] : round.further) {
                sized.further.emplace_back(peer, parts[part]);
                made->totals[index][peer] += parts[part];
            }
        }
    }
    if (!world_.options.by_flow) {
        for (int index = 0; index < members; ++index) {
            made->shares.push_back(member(step, *made, index, routes(group, index)));
        }
    }
    known = made;
    return known;
}

const Structure* Exchanges::structure(nb::handle tables) {
    auto& known = structures_[tables.ptr()];
    if (known.second == nullptr) {
        known.first = nb::borrow(tables);  // so that its address stays its own
        auto made = std::make_unique<Structure>();
        using Pairs = std::vector<std::pair<int, int>>;
        for (nb::handle round : nb::handle(tables[0])) {
            auto& members = made->rounds.emplace_back();
            for (nb::handle member : round) {
                members.push_back({nb::cast<Pairs>(member[0]), nb::cast<Pairs>(member[1]), nb::cast<int>(member[2])});
            }
        }
        made->order = nb::cast<std::vector<std::vector<int>>>(tables[1]);
        known.second = std::move(made);
    }
    return known.second.get();
}

const std::vector<int>& Exchanges::routes(Group& group, int index) {
    auto& known = group.routes[index];
    if (known.empty()) {
        known = nb::cast<std::vector<int>>(world_.host.member_routes(group.name, index));
    }
    return known;
}

std::vector<int> Exchanges::chosen_routes(const std::string& flow, Group& group, int index,
                                          const std::vector<std::int64_t>& total, const std::vector<int>& order) {
    nb::dict sizes;
    for (const int peer : order) {
        sizes[nb::int_(peer)] = total[peer];
    }
    return nb::cast<std::vector<int>>(world_.host.share_routes(flow, group.name, index, sizes));
}

Share Exchanges::member(Collective& step, const Script& script, int index, const std::vector<int>& routes) {
    Share share;
    share.total = script.totals[index];
    share.routes = routes;
    for (const int peer : script.structure->order[index]) {
        share.size += share.total[peer];
        add_load(share.load, world_.routes[routes[peer]].path, share.total[peer]);
    }
    std::vector<int> path;
    for (const Part& part : share.load) {
        path.push_back(part.port);
    }
    share.path = world_.path_number(path);
    add_overheads(share, step, index);
    return share;
}

void Exchanges::add_overheads(Share& share, Collective& step, int index) {
    const Options& options = world_.options;
    if (step.kind != ALL_TO_ALL || (options.burst_bytes == 0 && options.all_to_all_goodput >= 1.0)) {
        return;
    }
    const nb::object sizes = get<"sizes">(step.object);
    const auto cells = nb::cast<std::vector<std::vector<std::int64_t>>>(sizes);
    const int members = static_cast<int>(cells.size());
    int receivers = 0;
    for (int peer = 0; peer < members; ++peer) {
        receivers += peer != index && cells[index][peer] > 0;
    }
    share.beside.assign(cells.size(), {1, 1});
    for (int peer = 0; peer < members; ++peer) {
        if (peer == index) {
            continue;
        }
        int senders = 0;
        for (int other = 0; other < members; ++other) {
            senders += other != peer && cells[other][peer] > 0;
        }
        share.beside[peer] = {receivers, senders};
    }
    if (options.all_to_all_goodput >= 1.0) {
        return;
    }
    // If a member sends to several peers, and several members send to a peer, their connection gets at most
    // this part of an even share of its narrowest port.
    std::vector<double> caps(cells.size(), UNBOUNDED);
    bool capped = false;
    for (int peer = 0; peer < members; ++peer) {
        if (peer == index) {
            continue;
        }
        const Route& route = world_.routes[share.routes[peer]];
        const auto [mine, theirs] = share.beside[peer];
        if (route.crosses() && std::min(mine, theirs) > 1) {
            caps[peer] = options.all_to_all_goodput * route.narrowest / std::max(mine, theirs);
            capped = true;
        }
    }
    if (capped) {
        share.caps = std::move(caps);
    }
}

// The shares of all members together.
Share Exchanges::whole(Collective& step, const Script& script) {
    Group& group = groups_[step.group];
    Share whole;
    for (std::size_t index = 0; index < group.ranks.size(); ++index) {
        const int at = static_cast<int>(index);
        const auto& total = script.totals[index];
        const auto& order = script.structure->order[index];
        const std::vector<int> taken = world_.options.by_flow ? chosen_routes(step.id, group, at, total, order)
                                                              : routes(group, at);
        Load own;
        for (const int peer : order) {
            whole.size += total[peer];
            const Route& route = world_.routes[taken[peer]];
            whole.latency = std::max(whole.latency, route.latency);
            if (route.crosses()) {
                whole.largest = std::max(whole.largest, total[peer]);
            }
            add_load(own, route.path, total[peer]);
        }
        for (const Part& part : own) {
            add_load(whole.load, {part.port}, part.bytes);
        }
    }
    std::vector<int> path;
    for (const Part& part : whole.load) {
        path.push_back(part.port);
        whole.carried.push_back({world_.network_port(S2, part.port), part.bytes});
    }
    whole.path = world_.path_number(path);
    return whole;
}

}  // namespace mfs
