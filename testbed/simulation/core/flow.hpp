// A flow on its way over the simulated network, and its messages.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "testbed/simulation/core/world.hpp"

namespace mfs {

struct Flow;

// Flows that the policy places together (`controller.policy.FlowGroup`), in order of submission; null: complete.
// All are at `level` and `rate` if `alike`.
struct FlowGroup {
    std::vector<Flow*> flows;
    std::size_t active = 0;
    std::size_t unsent = 0;  // the flows that have bytes that are in no stream yet
    bool whole = true;       // each flow loads all ports of its path with all its bytes
    int number = NO_GROUP;  // in the links
    double order = 0.0;
    int level = NO_LEVEL;
    std::int64_t rate = NO_RATE;
    bool alike = true;
};

// Who waits for a flow.
struct Awaits {
    virtual void completed(Flow& flow) = 0;
    virtual ~Awaits() = default;
};

// A member of a collective, who waits for its messages too.
struct Exchanging : Awaits {
    // A message of member `index` has arrived at `peer`.
    virtual void arrived(int index, int peer) = 0;
};

// Bytes for a peer (ALL_PEERS: a whole group). They take `after` in addition to their time on the links.
// `exchange` is told when they have arrived; null: nobody is.
struct Message {
    int peer;
    std::int64_t size;
    Exchanging* exchange;
    Ns after;
};

struct Sent {
    int stream;
    Message message;
};

using Letters = std::vector<std::pair<int, std::int64_t>>;  // peers, and bytes for each

// What a member of a group sends in a collective, or all members together: bytes on each port, and the routes
// by peer. `largest` is over the largest connection of a group.
struct Share {
    std::int64_t size = 0, largest = 0;
    std::vector<std::int64_t> total;  // by peer; -1: nothing, not even an empty message
    std::vector<int> order;           // the peers, in the order in which ports are counted
    std::vector<int> routes;          // by peer
    Ns latency = 0;                   // of a group: the longest of its routes
    Load load;                        // by link of the topology
    Load carried;                     // by port of the network
    int path = 0;
    mutable nb::object as_dict;  // `load`, for Python; made when it is asked for
    std::vector<std::pair<int, int>> beside;  // connections that begin together at the sender and at each peer
    std::vector<double> caps;                 // by peer; empty: no limits
};

// A lane of a pair of ranks: a connection that takes the route with this number.
struct PairLane : Lane {
    int route = -1;
};

struct Flow : Claim {
    // --- what it is
    int stage = S1, src = 0, dst = 0, layer = NO_NAME;
    std::int64_t size = 0, request = NONE;
    Ns deadline = NONE;
    BatchInfo* batch = nullptr;
    nb::object transfer, id;  // Python's; null for a share while Python does not know it
    std::string coflow_text;
    bool has_coflow = false;
    const Standing* standing = nullptr;
    const Load* load = nullptr;
    Load own_load;
    FlowGroup* group = nullptr;
    std::size_t group_at = 0;
    // --- who waits for it
    Awaits* awaits = nullptr;
    void* for_what = nullptr;
    int index = 0;
    // --- where it is
    Ns submit = 0, lane_ns = 0, permit = -1, after = 0, then = 0;
    const Share* share = nullptr;
    int route = -1, path = 0;
    std::unique_ptr<PairLane> spare;  // the lane, if it is a spare one
    std::vector<Sent> streams;
    std::int64_t owed = 0, unsent = 0, told = 0;
    double in_step = 1.0;  // bytes of the flow for a byte of its streams
    int acts = 0;          // of the agenda that are about it
    bool complete = false, buried = false;
    int batch_number = NO_BATCH;  // in PortLoads, while it is an S1 or S2 flow there

    int route_to(int peer) const { return share != nullptr && peer >= 0 ? share->routes[peer] : route; }

    Place place() const { return group == nullptr ? Place{wanted, order} : Place{wanted, 0.0, group->number}; }

    bool bounded() const { return rate != NO_RATE || (share != nullptr && !share->caps.empty()); }

    // The highest rate of a stream to `peer`, in bytes per nanosecond. A pace holds for the whole flow, so each
    // of its streams gets an even part of it.
    double bound(int peer) const {
        double most = UNBOUNDED;
        if (share != nullptr && !share->caps.empty() && peer >= 0) {
            most = share->caps[peer];
        }
        if (rate != NO_RATE) {
            const double sharing = static_cast<double>(std::max<std::size_t>(1, streams.size()));
            most = std::min(most, static_cast<double>(rate) / 8e9 / sharing);
        }
        return most;
    }
};

}  // namespace mfs
