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
        all.transport_.group_opened(
            *flow, options.collective_ns + further * options.round_ns + (further + 1) * share->latency);
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

    // Begins round `number`, and further ones as long as there is nothing to wait for. A paused rank does so later.
    void enter(int index, int number) {
        const Ns until = world().paused_until(all.groups_[step.group].ranks[index]);
        if (number > 0 && until > world().now()) {
            world().at(until, Does::ENTER, this, index, number);
            return;
        }
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
            Letters some, others;
            const Letters& first = ready(index, number, round.first, some);
            for (const auto& letter : ready(index, number, round.further, others)) {
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

    // The messages whose receivers are in the round: all, or `some`. Others are held back until their receivers are.
    const Letters& ready(int index, int number, const Letters& letters, Letters& some) {
        const auto here = [&](const auto& letter) { return members[letter.first].round == number; };
        if (std::all_of(letters.begin(), letters.end(), here)) {
            return letters;
        }
        for (const auto& letter : letters) {
            if (here(letter)) {
                some.push_back(letter);
            } else {
                held.push_back({letter.first, number, index, letter.second});
            }
        }
        return some;
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
        const int rank = all.groups_[step.group].ranks[index];
        const Ns ends = world().ends_ns(rank, now, step.round_seconds[index][number]);
        world().at(ends, Does::COMPUTED, this, index, now);
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

void Exchanges::enter(void* exchange, std::int64_t index, std::int64_t number) {
    static_cast<Exchange*>(exchange)->enter(static_cast<int>(index), static_cast<int>(number));
}

void Exchanges::over(Joined* joined) { dead_.emplace_back(joined); }

}  // namespace mfs
