// What the scheduler says, carried through to flows that wait for a lane or have one. The same on every fabric.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "controller/core/lanes.hpp"

namespace mfs {

// A flow is submitted twice, completes without a lane, or takes a lane that another flow has.
struct LaneError : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// The flow is complete, or it is given up: its lane is free, and it waits for none.
inline void leave(Claim& claim) {
    if (claim.lane != nullptr && claim.lane->claim == &claim) {
        if (claim.pool != nullptr) {
            claim.pool->release(*claim.lane);
        } else {
            claim.lane->claim = nullptr;
        }
    } else if (claim.pool != nullptr) {
        std::erase(claim.pool->waiting, &claim);
    }
}

// What the assignments of one event lead to. `moved` are the flows to move, in order: those on a lane whose
// level, order or rate may have changed; a flow can be among them twice. `crowded` are the pools in which a
// flow that waits got an assignment.
struct Heard {
    std::vector<Claim*> moved;
    std::vector<Pool*> crowded;
};

// Submits flows, and takes in the scheduler's assignments.
//
// `changed` is called with each change of a level: the level before (NO_LEVEL for a flow's first), and why.
class Claims {
  public:
    using Changed = std::function<void(Ns now, const Claim& claim, int before, std::string_view reason)>;

    explicit Claims(Changed changed) : changed_(std::move(changed)) {}

    std::int64_t submitted() const { return submitted_; }

    // The flow waits for a lane of `pool`.
    void submit(Claim& claim, Pool& pool) {
        admit(claim);
        claim.pool = &pool;
        pool.waiting.push_back(&claim);
    }

    // The flow takes `lane`, a rank's side of a process group, which is in no pool.
    void submit_on(Claim& claim, Lane& lane) {
        if (lane.claim != nullptr) {
            throw LaneError("'" + claim.text + "' starts before '" + lane.claim->text + "' has ended");
        }
        admit(claim);
        lane.claim = &claim;
        claim.lane = &lane;
    }

    // Takes in one assignment. After the last one of an event, `lend_all` lends levels where flows wait.
    void hear(Ns now, Claim& claim, int level, double order, std::int64_t rate, std::string_view reason,
              Heard& heard) {
        claim.obey(level, order, rate);
        if (claim.wanted != claim.level_last) {
            note(now, claim, reason);
        }
        if (claim.lane != nullptr) {
            heard.moved.push_back(&claim);
        } else if (claim.pool != nullptr && std::find(heard.crowded.begin(), heard.crowded.end(), claim.pool) ==
                                                heard.crowded.end()) {
            heard.crowded.push_back(claim.pool);
        }
    }

    void lend_all(Ns now, Heard& heard) {
        for (Pool* pool : heard.crowded) {
            lend(now, *pool, heard.moved);
        }
    }

    // Lends the levels of the flows that wait for a lane of `pool`; appends the flows to move.
    void lend(Ns now, Pool& pool, std::vector<Claim*>& moved) {
        pool.lend([&](Claim& holder, const Claim& waiting) {
            note(now, holder,
                 "its lane is needed by " + waiting.text + ", which waits at " + LEVEL_NAMES[waiting.level]);
            moved.push_back(&holder);
        });
    }

  private:
    Changed changed_;
    std::int64_t submitted_ = 0;

    void admit(Claim& claim) {
        if (claim.pool != nullptr || claim.lane != nullptr) {
            throw LaneError("flow '" + claim.text + "' is submitted twice");
        }
        claim.number = submitted_++;
    }

    void note(Ns now, Claim& claim, std::string_view reason) {
        const int before = claim.level_last;
        claim.moved_to(claim.wanted);
        changed_(now, claim, before, reason);
    }
};

}  // namespace mfs
