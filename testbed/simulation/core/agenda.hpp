// Model time of a simulation: what happens when, in one total order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "controller/core/lanes.hpp"

namespace mfs {

// What an act does; `what` of the act is the object it does it to.
enum class Does : std::uint8_t {
    CALL,          // a Python callable
    RESUME,        // a rank's run goes on
    ENTER,         // a member of a collective begins a round
    COMPUTED,      // a member of ring attention has computed over a block
    ARRIVE,        // a message is through
    COMPLETE,      // a flow without bytes is complete
    SEND,          // messages of a flow that had no permit yet
    BEGIN_GROUP,   // a collective as one stream begins
    FIRST_TOKEN,   // the first decode step of a request is over
    POST,          // a flow of the micro workload starts
};

struct Act {
    Ns time;
    std::uint64_t planned;
    Does does;
    void* what;
    std::int64_t more[2];
};

// Acts to come, by model time. Acts of one nanosecond run in the order in which they were planned. `late`
// counts the acts that were planned for a time that had passed, which is a bug of the planner.
class Agenda {
   public:
    Ns now = 0;
    std::int64_t late = 0;

    void at(Ns time, Does does, void* what, std::int64_t first = 0, std::int64_t second = 0) {
        late += time < now;
        acts_.push_back({time, planned_++, does, what, {first, second}});
        std::push_heap(acts_.begin(), acts_.end(), later);
    }

    bool empty() const { return acts_.empty(); }

    Ns next_ns() const { return acts_.front().time; }

    // Removes the next act that is due now, if there is one.
    bool take_due(Act& act) {
        if (acts_.empty() || acts_.front().time > now) {
            return false;
        }
        act = acts_.front();
        std::pop_heap(acts_.begin(), acts_.end(), later);
        acts_.pop_back();
        return true;
    }

    const std::vector<Act>& acts() const { return acts_; }

   private:
    std::vector<Act> acts_;
    std::uint64_t planned_ = 0;

    static bool later(const Act& a, const Act& b) {
        return a.time != b.time ? a.time > b.time : a.planned > b.planned;
    }
};

}  // namespace mfs
