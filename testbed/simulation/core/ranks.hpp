// The ranks of a simulated run. They do what `workers.rank` does, and compute takes what the plan says.
#pragma once

#include <deque>
#include <unordered_map>

#include "testbed/simulation/core/exchanges.hpp"

namespace mfs {

// A step of a layer: compute of so many seconds at each rank of the plan, or a collective.
struct Step {
    int label = 0;
    std::vector<double> seconds;  // empty: a collective
    Collective collective;
};

struct Layer {
    int index = 0;
    bool pauses = false;  // the ranks stop before it
    std::vector<Step> steps;
    std::vector<std::vector<nb::object>> posts;      // by place of the rank in the plan: S3 transfers
    std::vector<std::vector<std::int64_t>> awaited;  // the same: what it waits for, each once
    std::vector<int> fetches;                        // the same: how many S1 flows these are
};

struct Plan;

// A rank's work on a plan. `on` is called where it may go on.
struct RankRun final : Goes {
    enum class At { BEGIN, LAYER, PAUSED, FETCHES, STEPS, JOINED };

    class Ranks& ranks;
    Plan& plan;
    int rank, place;
    At at = At::BEGIN;
    std::size_t layer = 0, step = 0, fetch = 0;
    Ns start = 0, since = 0;
    bool in_compute = false;

    RankRun(Ranks& all, Plan& of, int who, int where) : ranks(all), plan(of), rank(who), place(where) {}
    void on() override;
};

struct Plan {
    nb::object id;
    BatchInfo* batch = nullptr;
    std::vector<int> ranks;
    std::vector<std::unique_ptr<Layer>> layers;
    std::vector<RankRun*> paused;
    std::size_t unfinished = 0;
};

class Ranks final : public Awaits {
   public:
    Ranks(World& world, Transport& transport, Exchanges& exchanges)
        : world_(world), transport_(transport), exchanges_(exchanges) {}

    // Prepares for the transfers of a plan, which may arrive before a rank reaches it.
    void expect(nb::handle plan, bool is_batch);
    // Submits a transfer. Whatever waits for it goes on when it has arrived.
    void post(nb::handle transfer);
    // Hands a plan to its ranks.
    void run(nb::handle plan);
    // Lets the ranks that paused in the plan go on.
    void go_on(nb::handle plan);

    void completed(Flow& flow) override;
    void first_token(void* request);
    void advance(RankRun& run);
    void bury();

   private:
    // Counts the S3 flows of a request, over all batches with a part of its prompt: as
    // `workers.first_tokens.Deliveries`.
    struct Delivery {
        std::int64_t request = 0;
        bool known = false, last = false;
        std::int64_t flows = 0, arrived = 0;
        std::vector<int> decode_ranks;
        int batch = NO_NAME;
        double decode_step_s = 0.0;
        Ns end = 0;    // of its S3
        Ns begun = 0;  // its first decode step
    };
    // The S1 flows to a rank for a layer of a plan.
    struct Fetch {
        std::int64_t missing = 0;
        RankRun* waiter = nullptr;
    };

    World& world_;
    Transport& transport_;
    Exchanges& exchanges_;
    std::vector<bool> busy_;
    std::unordered_map<int, std::deque<RankRun*>> lines_;
    std::unordered_map<std::string, std::unique_ptr<Plan>> plans_;
    std::unordered_map<std::int64_t, std::unique_ptr<Delivery>> deliveries_;
    std::unordered_map<std::int64_t, Fetch> fetches_;
    std::vector<std::unique_ptr<RankRun>> dead_;
    std::vector<std::unique_ptr<Plan>> dead_plans_;

    std::int64_t fetch_of(nb::handle transfer);
    std::unique_ptr<Plan> read(nb::handle plan);
    void read_steps(nb::handle steps, Layer& layer);
    void read_transfers(nb::handle said, Layer& layer, const std::unordered_map<int, int>& place_of);
    bool work(RankRun& run);
    bool go_through_steps(RankRun& run);
    void pause(RankRun& run);
    void finish(RankRun& run);
    Delivery& delivery(std::int64_t request);
    void check_delivery(Delivery& delivery);
    void report(const nb::object& event, RankRun& run, nb::handle more);
    bool is_busy(int rank) const { return rank < static_cast<int>(busy_.size()) && busy_[rank]; }
    void set_busy(int rank, bool busy);
};

}  // namespace mfs
