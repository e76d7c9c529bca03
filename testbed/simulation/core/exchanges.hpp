// Collectives: round by round, or as one stream if that takes equally long.
#pragma once

#include <unordered_map>

#include "testbed/simulation/core/transport.hpp"

namespace mfs {

// Where a rank that waits goes on.
struct Goes {
    virtual void on() = 0;
    virtual ~Goes() = default;
};

constexpr int ALL_TO_ALL = 0;  // `workers.plan.CollectiveKind`, in its order

// What each member of some kind of collective sends in each round, in numbered parts.
struct Structure {
    struct Round {
        std::vector<std::pair<int, int>> first;    // peers, each once, and a part for each
        std::vector<std::pair<int, int>> further;  // to the same peers: both trees of a double tree can have one
        int expected;                              // messages to receive
    };
    std::vector<std::vector<Round>> rounds;  // by round, then member
    std::vector<std::vector<int>> order;     // by member: the peers that it sends to
};

// The sizes for a structure, worked out once for all layers that are alike.
struct Script {
    struct Round {
        Letters first, further;
        int expected;
    };
    nb::object sizes;
    bool even = false;  // it may go as one stream
    std::vector<std::vector<Round>> rounds;
    std::vector<Share> shares;  // by member; empty if paths are chosen by flow
    std::vector<std::vector<std::int64_t>> totals;
    const Structure* structure = nullptr;
    Share whole;
    bool has_whole = false;
};

struct Joined;

// One collective of a plan. `round_seconds` is of ring attention (`workers.plan.Collective`).
struct Collective {
    nb::object object;
    std::string id;
    int group = 0, kind = 0, label = 0;
    std::vector<std::vector<double>> round_seconds;
    Joined* under_way = nullptr;
};

// A collective under way.
struct Joined : Exchanging {
    virtual void join(int index, Goes* goes) = 0;
};

struct Group {
    nb::object name;
    std::vector<int> ranks;
    std::unordered_map<int, int> index_of;
    std::vector<std::vector<int>> routes;  // by member, then peer; made when they are asked for
};

class Exchanges {
   public:
    Exchanges(World& world, Transport& transport) : world_(world), transport_(transport) {}

    void add_group(nb::handle name, const std::vector<int>& ranks);
    int group(nb::handle name) const;
    // The place of `rank` in the group; -1 if it is not in it.
    int index_in(int group, int rank) const;

    // `rank` has reached `step`. `goes` is called when it may go on, perhaps at once.
    void join(Collective& step, BatchInfo* batch, int layer, int rank, Goes* goes);
    void computed(void* exchange, std::int64_t index, Ns began);
    void enter(void* exchange, std::int64_t index, std::int64_t number);
    void over(Joined* joined);  // it has ended
    void bury() { dead_.clear(); }

   private:
    friend struct Exchange;
    friend struct Together;

    World& world_;
    Transport& transport_;
    std::vector<Group> groups_;
    std::unordered_map<std::string, int> numbers_;
    std::unordered_map<std::uint64_t, std::shared_ptr<Script>> scripts_;
    std::unordered_map<PyObject*, std::pair<nb::object, std::unique_ptr<Structure>>> structures_;
    std::vector<std::unique_ptr<Joined>> dead_;

    std::shared_ptr<Script> script(Collective& step);
    const Structure* structure(nb::handle tables);
    const std::vector<int>& routes(Group& group, int index);
    std::vector<int> chosen_routes(const std::string& flow, Group& group, int index,
                                   const std::vector<std::int64_t>& total, const std::vector<int>& order);
    void count(Share& share, const std::vector<int>& order);
    void add_overheads(Share& share, Collective& step, int index);
    Share whole(Collective& step, const Script& script);
    Share member(Collective& step, const Script& script, int index, const std::vector<int>& routes);
};

}  // namespace mfs
