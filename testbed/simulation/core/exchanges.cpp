#include "testbed/simulation/core/exchanges.hpp"

namespace mfs {

// A collective as one stream: it begins when its last member joins, and ends for all at once.
struct Together final : Joined {
    Exchanges& all;
    Collective& step;
    BatchInfo* batch;
    int layer;
    std::shared_ptr<Script> script;
    Share own;  // if paths are chosen by flow
    std::vector<Goes*> goes;
    std::size_t here = 0;

    Together(Exchanges& exchanges, Collective& collective, BatchInfo* of, int at, std::shared_ptr<Script> known)
        : all(exchanges),
          step(collective),
          batch(of),
          layer(at),
          script(std::move(known)),
          goes(all.groups_[collective.group].ranks.size()) {}

    void join(int index, Goes* then) override {
        goes[index] = then;
        if (++here < goes.size()) {
            return;
        }
        const Share* share = &script->whole;
        if (all.world_.options.by_flow) {
            own = all.whole(step, *script);
            share = &own;
        } else if (!script->has_whole) {
            script->whole = all.whole(step, *script);
            script->has_whole = true;
        }
        const Group& group = all.groups_[step.group];
        const Options& options = all.world_.options;
        Flow* flow = all.transport_.open({step.object, step.id, &step.id, step.group, 0, group.ranks[0], batch, layer,
                                          share, true},
                                         this, nullptr);
        const auto further = static_cast<Ns>(script->structure->rounds.size()) - 1;
        all.transport_.group_opened(*flow, options.collective_ns + further * options.round_ns);
    }

    void arrived(int, int) override {}

    void completed(Flow&) override {
        all.over(this);
        step.under_way = nullptr;
        for (Goes* each : goes) {
            each->on();
        }
    }
};

// A collective round by round.
//
// A message is sent when both its ends are in its round, because the receiver has no buffer before. The same
// holds for gloo, and for NCCL beyond what its own buffers hold. A member is in a round until all that it sends
// and receives in it has arrived. In ring attention, it also has to compute over its block. In the last round,
// its flow also has to be complete.
struct Exchange final : Joined {
    struct Member {
        int round = -1;
        int waits = 0;
        bool complete = false;
        Ns since = 0;
        Goes* goes = nullptr;
        Flow* flow = nullptr;
    };
    struct Held {
        int peer, number, from;
        std::int64_t size;
    };

    Exchanges& all;
    Collective& step;
    BatchInfo* batch;
    int layer;
    std::shared_ptr<Script> script;
    std::vector<Share> own;  // if paths are chosen by flow
    std::vector<Member> members;
    std::vector<Held> held;
    int last;
    std::size_t unfinished;

    Exchange(Exchanges& exchanges, Collective& collective, BatchInfo* of, int at, std::shared_ptr<Script> known)
        : all(exchanges),
          step(collective),
          batch(of),
          layer(at),
          script(std::move(known)),
          members(all.groups_[collective.group].ranks.size()),
          last(static_cast<int>(script->rounds.size()) - 1),
          unfinished(members.size()) {
        if (all.world_.options.by_flow) {
            own.resize(members.size());
        }
    }

    World& world() { return all.world_; }

    void join(int index, Goes* then) override {
        Member& member = members[index];
        Group& group = all.groups_[step.group];
        member.goes = then;
        member.since = world().now();
        std::string id = step.id + "." + std::to_string(index);
        const Share* share;
        if (world().options.by_flow) {
            const auto& order = script->structure->order[index];
            own[index] = all.member(step, *script, index,
                                    all.chosen_routes(id, group, index, script->totals[index], order));
            share = &own[index];
        } else {
            share = &script->shares[index];
        }
        member.flow = all.transport_.open({step.object, std::move(id), &step.id, step.group, index,
                                           group.ranks[index], batch, layer, share, false},
                                          this, nullptr);
        ++member.flow->acts;  // an empty message of it may be held back after its last byte has arrived
        const Options& options = world().options;
        all.transport_.share_opened(*member.flow,
                                    step.kind == ALL_TO_ALL ? options.collective_ns : options.round_ns);
        enter(index, 0);
    }

    // Begins round `number`, and further ones as long as there is nothing to wait for.
    void enter(int index, int number) {
        Member& member = members[index];
        for (; number <= last; ++number) {
            const Script::Round& round = script->rounds[number][index];
            int waits = static_cast<int>(round.first.size() + round.further.size()) + round.expected;
            if (!step.round_seconds.empty()) {
                ++waits;
                compute(index, number);
            }
            if (number == last && !member.complete) {
                ++waits;
            }
            member.round = number;
            member.waits = waits;
            const Letters first = ready(index, number, round.first);
            for (const auto& letter : ready(index, number, round.further)) {
                send(index, {letter});  // one by one: NCCL has a connection for each tree
            }
            if (!first.empty()) {
                send(index, first);
            }
            if (!held.empty()) {
                release(index, number);
            }
            if (waits > 0) {
                return;
            }
        }
        through(index);
    }

    void send(int index, const Letters& letters) { all.transport_.send(*members[index].flow, letters, this); }

    // The messages whose receivers are in the round. Others are held back until their receivers are.
    Letters ready(int index, int number, const Letters& letters) {
        Letters found;
        for (const auto& [peer, size] : letters) {
            if (members[peer].round == number) {
                found.emplace_back(peer, size);
            } else {
                held.push_back({peer, number, index, size});
            }
        }
        return found;
    }

    void release(int index, int number) {
        std::vector<Held> due;
        const auto kept = std::stable_partition(held.begin(), held.end(), [&](const Held& each) {
            return each.peer != index || each.number != number;
        });
        due.assign(kept, held.end());
        held.erase(kept, held.end());
        for (const Held& each : due) {
            send(each.from, {{index, each.size}});
        }
    }

    void compute(int index, int number) {
        record_wait(index);
        const Ns now = world().now();
        const Ns takes = world().takes_ns(step.round_seconds[index][number]);
        world().at(now + takes, Does::COMPUTED, this, index, now);
    }

    void computed(int index, Ns began) {
        record(index, SpanKind::COMPUTE, began);
        members[index].since = world().now();
        happened(index);
    }

    // Both are in the message's round.
    void arrived(int index, int peer) override {
        happened(peer);
        happened(index);
    }

    void completed(Flow& flow) override {
        Member& member = members[flow.index];
        member.complete = true;
        if (member.round == last) {
            happened(flow.index);
        }
    }

    // One of the things that a member waits for in its round has happened.
    void happened(int index) {
        Member& member = members[index];
        if (--member.waits == 0) {
            enter(index, member.round + 1);
        }
    }

    void through(int index) {
        if (!step.round_seconds.empty()) {
            record_wait(index);
        }
        if (--unfinished == 0) {
            step.under_way = nullptr;
            for (const Member& member : members) {
                --member.flow->acts;
                all.transport_.let_go(*member.flow);
            }
            all.over(this);
        }
        members[index].goes->on();
    }

    // Records that ring attention has waited for bytes since it computed over the last block.
    void record_wait(int index) {
        if (members[index].since < world().now()) {
            record(index, SpanKind::COLLECTIVE, members[index].since);
        }
    }

    void record(int index, SpanKind kind, Ns start) {
        world().span(all.groups_[step.group].ranks[index], kind, step.label, batch->name, layer, start);
    }
};

// --- joining ----------------------------------------------------------------------------------------

void Exchanges::add_group(nb::handle name, const std::vector<int>& ranks) {
    numbers_[nb::cast<std::string>(name)] = static_cast<int>(groups_.size());
    Group group;
    group.name = nb::borrow(name);
    group.ranks = ranks;
    group.routes.resize(ranks.size());
    for (std::size_t i = 0; i < ranks.size(); ++i) {
        group.index_of[ranks[i]] = static_cast<int>(i);
    }
    groups_.push_back(std::move(group));
}

int Exchanges::group(nb::handle name) const { return numbers_.at(nb::cast<std::string>(name)); }

int Exchanges::index_in(int group, int rank) const {
    const auto at = groups_[group].index_of.find(rank);
    return at == groups_[group].index_of.end() ? -1 : at->second;
}

void Exchanges::join(Collective& step, BatchInfo* batch, int layer, int rank, Goes* goes) {
    if (step.under_way == nullptr) {
        std::shared_ptr<Script> known = script(step);
        if (world_.options.grouped && known->even) {
            step.under_way = new Together(*this, step, batch, layer, std::move(known));
        } else {
            step.under_way = new Exchange(*this, step, batch, layer, std::move(known));
        }
    }
    step.under_way->join(index_in(step.group, rank), goes);
}

void Exchanges::computed(void* exchange, std::int64_t index, Ns began) {
    static_cast<Exchange*>(exchange)->computed(static_cast<int>(index), began);
}

void Exchanges::over(Joined* joined) { dead_.emplace_back(joined); }

// --- scripts ----------------------------------------------------------------------------------------

std::shared_ptr<Script> Exchanges::script(Collective& step) {
    auto& known = scripts_[static_cast<std::uint64_t>(step.group) << 32 | static_cast<std::uint64_t>(step.label)];
    const nb::object sizes = step.object.attr("sizes");
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
    const nb::object sizes = step.object.attr("sizes");
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
