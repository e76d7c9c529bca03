// What is between the ranks and the links: lanes, levels and completions.
//
// It does what the dispatcher of the emulated fabric does, but takes no time unless the options say so. A flow
// waits for a lane of its pair of ranks. A share of a collective has a connection to each peer.
#pragma once

#include <memory>
#include <string_view>
#include <unordered_map>

#include "controller/core/claims.hpp"
#include "controller/core/expected_load.hpp"
#include "testbed/simulation/core/bursts.hpp"
#include "testbed/simulation/core/flow.hpp"

namespace mfs {

// One number for a pair of ranks and a stage, or for a member (`dst`) of a group (`src`).
inline std::uint64_t lane_key(int stage, int src, int dst) {
    return (static_cast<std::uint64_t>(stage) << 60) | (static_cast<std::uint64_t>(src) << 30) |
           static_cast<std::uint64_t>(dst);
}

// A share of a collective to submit: the `Collective`, the flow's id, and the collective's.
struct Opened {
    nb::handle step;
    std::string id;
    const std::string* step_id;
    int group, index, src;
    BatchInfo* batch;
    int layer;
    const Share* share;
    bool whole;
};

class Transport {
   public:
    explicit Transport(World& world);

    // Sends what `transfer` (a `controller.flow.Transfer`) says; `awaits` is told of its last byte.
    void post(nb::handle transfer, Awaits* awaits, void* for_what);

    // Submits a share of a collective, or a whole group in step. Nothing is called back before it has returned.
    Flow* open(Opened opened, Awaits* awaits, void* for_what);
    // The share takes `then` besides its bytes in each further round; the caller sends it with `send`.
    void share_opened(Flow& flow, Ns then);
    // The group takes `after` besides its bytes. It begins at its permit.
    void group_opened(Flow& flow, Ns after);

    // Hands over bytes of a flow.
    void send(Flow& flow, const Letters& letters, Exchanging* exchange);

    void finished(const std::vector<int>& streams);
    void report_progress();
    void tick();
    Ns next_tick_ns();  // NEVER: none
    nb::dict left_on_ports(nb::handle group);  // bytes left of its flows, by port
    void batch_started(nb::handle batch);
    void layer_advanced(nb::handle batch, int layer);

    // Acts of the agenda.
    void arrive(void* letter);
    void send_late(void* letters);
    void complete_empty(Flow& flow);
    void begin_group(Flow& flow);

    // The bytes handed over for each port so far, without those that passed at once.
    std::vector<double> carried() const;
    void let_go(Flow& flow);  // forgets it, if it is complete and no act is about it
    void bury();              // frees what is over

    std::int64_t submitted() const { return claims_.submitted(); }

    std::int64_t disorder = 0, too_fast = 0;
    Ns last_moment = 0;

   private:
    struct LanePool {
        LanePool(const std::vector<int>& routes, bool bounded);

        std::vector<PairLane> lanes;
        Pool pool;
        ExpectedLoad expected;  // by link of the topology
        std::int64_t load_size = -1;
        nb::object as_dict;
        Load load;
    };

    World& world_;
    Bursts bursts_;
    Claims claims_;
    std::unordered_map<std::uint64_t, std::unique_ptr<LanePool>> pools_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Lane>> sides_;
    nb::dict active_;  // flow id -> address, of the flows that Python knows
    std::int64_t python_flows_ = 0;
    std::unordered_map<std::string, std::unique_ptr<FlowGroup>> groups_;
    std::vector<double> left_on_;  // by port; kept only for its memory
    std::vector<Flow*> owner_;  // by stream
    std::vector<double> grouped_;
    std::vector<std::unique_ptr<Flow>> dead_;
    std::vector<Flow*> moving_;
    Ns tick_ns_ = NEVER;
    bool tick_known_ = false;

    void submit(Flow& flow, nb::handle transfer, nb::handle load, Heard& heard);
    void take_verdict(Flow& flow, nb::handle said, Heard& heard);
    void take_standing(Flow& flow, Heard& heard);
    void take_python(nb::handle assignments, Heard& heard);
    void hear(Flow& flow, int level, double order, std::int64_t rate, std::string_view reason, Heard& heard);
    void take_group(nb::handle said, Heard& heard);
    void join_group(Flow& flow);
    void leave_group(Flow& flow);
    void note_group(FlowGroup& group, int level, double order, std::int64_t rate);
    std::int64_t left_of(const Flow& flow) const;
    void obey_python(nb::handle assignments);
    void note(const Claim& claim, int before, std::string_view reason);
    void carry_out(const std::vector<Claim*>& moved, Pool* pool);
    void permitted(Flow& flow);
    void own(int stream, Flow& flow);
    void through(Flow& flow, const Message& message);
    void complete(Flow& flow);
    void row(const Flow& flow);
    void move(Flow& flow);
    void move_all(const std::vector<Claim*>& claims);
    double passed(Route& route, std::int64_t size, int sharing);
    const Standing* standing(BatchInfo& batch, int stage);
    LanePool& lane_pool(int stage, int src, int dst);
    void set_load(LanePool& lanes, std::int64_t size);
    bool counts_bytes(const Flow& flow) const;
    void submitted_bytes(Flow& flow);
    void moved_bytes(Flow& flow, std::int64_t before);
    void finished_bytes(Flow& flow);
};

}  // namespace mfs
