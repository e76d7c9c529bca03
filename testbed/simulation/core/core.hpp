// The event loop of a simulated run.
#pragma once

#include <chrono>

#include "testbed/simulation/core/ranks.hpp"

namespace mfs {

// Runs ranks, collectives, lanes and links from moment to moment. Python (`Host`) makes the plans and is asked
// where a policy or the serving system has to decide.
//
// In one nanosecond, the streams that have ended are taken first. Then the scheduler's tick runs, if it is due,
// then all acts that are due, in the order in which they were planned. Last, the links share their rates anew.
// So all that happens at one moment is known before anything moves.
class Core {
   public:
    World world;
    Transport transport;
    Exchanges exchanges;
    Ranks ranks;

    Core(const std::vector<double>& capacity, double guarantee, std::vector<nb::object> links,
         const Options& options, nb::handle host, PortLoads* loads)
        : world(capacity, guarantee, std::move(links), options, host),
          transport(world),
          exchanges(world, transport),
          ranks(world, transport, exchanges) {
        world.loads = loads;
    }
    ~Core();
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;

    void run();
    void flush();  // gives what is left of the rows to Python
    void at(Ns time, nb::handle callable);
    void post_at(Ns time, nb::handle transfer);

    std::int64_t events = 0, back = 0, slow_streams = 0;
    double fullest = 0.0;

   private:
    Ns progress_due_ = 0, look_due_ = 0;
    std::int64_t steps_ = 0, looks_ = 0, standstill_ = 0;
    bool finished_ = false;
    std::vector<int> ended_;
    std::chrono::steady_clock::time_point reported_ = std::chrono::steady_clock::now();

    bool finished();
    void step();
    void perform(const Act& act);
    Ns next_end_ns();
    Ns look_ns();
    bool stands_still();
    void sample();
    void report();
};

}  // namespace mfs
