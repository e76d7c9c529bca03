// Lanes: which flow gets one, and which levels waiting flows lend.
//
// A lane carries one flow at a time from one rank to another. All lanes of the two ranks for a stage form a
// pool. A submitted flow has a claim to a lane of its pool and waits until one is free; the most urgent flow
// goes first. While all lanes of a pool are taken, a more urgent flow that waits lends its level to the lane
// that was taken first. A rank's side of a process group is a lane as well, in no pool.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

namespace mfs {

using Ns = std::int64_t;

constexpr int CONTROL = 0;
constexpr int SCAVENGER = 7;
constexpr int NO_LEVEL = -1;
constexpr std::int64_t NO_RATE = -1;

struct Claim;
struct Pool;

// `level` is the level in force on it. `taken` is smaller for a lane of the pool that was taken earlier. A
// spare lane is made for one flow, beyond the lanes of the pool, and is gone when that flow is complete.
struct Lane {
    int route = -1;
    int level = CONTROL;
    bool spare = false;
    Claim* claim = nullptr;
    std::int64_t taken = 0;
};

// A flow that waits for a lane or has one, and the levels it was at. It is served at `wanted`, the more
// urgent of `level` (the scheduler's) and `lent`. `number` counts submissions; `rate` is in bits/s.
struct Claim {
    std::int64_t number = 0;
    Pool* pool = nullptr;
    Lane* lane = nullptr;
    int level = SCAVENGER;
    int wanted = SCAVENGER;
    int lent = NO_LEVEL;
    double order = 0.0;
    std::int64_t rate = NO_RATE;
    int level_first = NO_LEVEL;
    int level_last = NO_LEVEL;
    int promotions = 0;

    void obey(int said, double said_order, std::int64_t said_rate) {
        level = said;
        order = said_order;
        rate = said_rate;
        wanted = lent == NO_LEVEL ? level : std::min(level, lent);
    }

    void borrow(int from_waiting) {
        lent = from_waiting;
        wanted = std::min(level, from_waiting);
    }

    // The flow is at `now` from this moment on. Its first level is not a promotion.
    void moved_to(int now) {
        if (level_last == NO_LEVEL) {
            level_first = now;
        } else if (now < level_last) {
            ++promotions;
        }
        level_last = now;
    }

    // Of waiting flows, the one that is served first: by level, exact order inside it, then submission.
    bool before(const Claim& other) const {
        return std::tie(level, order, number) < std::tie(other.level, other.order, other.number);
    }
};

// The lanes from one rank to another for one stage, and the flows that wait for one of them.
//
// If `unbounded`, no flow ever waits: when all lanes are taken, there is a spare lane over the path of one of
// them; the lanes take turns.
struct Pool {
    std::vector<Lane> lanes;
    std::vector<Claim*> waiting;  // in the order of submission
    bool unbounded = false;

    Pool(const std::vector<int>& routes, bool bounded) : lanes(routes.size()), unbounded(!bounded) {
        for (std::size_t i = 0; i < routes.size(); ++i) {
            lanes[i].route = routes[i];
        }
        free_ = static_cast<int>(routes.size());
    }

    // Gives free lanes to the flows that wait, the most urgent first; appends the flows that got one.
    void fill(std::vector<Claim*>& granted) {
        while (!waiting.empty() && (free_ > 0 || unbounded)) {
            auto first = std::min_element(waiting.begin(), waiting.end(),
                                          [](const Claim* a, const Claim* b) { return a->before(*b); });
            Claim* claim = *first;
            waiting.erase(first);
            take(claim, next_lane(claim->wanted));
            granted.push_back(claim);
        }
    }

    // The flow that had `lane` is complete.
    void release(Lane* lane) {
        lane->claim = nullptr;
        if (lane->spare) {
            auto same = std::find_if(spares_.begin(), spares_.end(), [&](auto& s) { return s.get() == lane; });
            spares_.erase(same);
        } else {
            ++free_;
        }
    }

    // Lends the levels of waiting flows to flows that have a lane, and calls `lent(holder, waiting)` for each
    // loan. The holder keeps the level until it is complete.
    //
    // The i-th waiting flow, the most urgent first, needs i lanes that are at least as urgent as it is. If one
    // is missing, the flow lends its level to the lane that was taken first among the less urgent ones. Without
    // lending, a pool full of deferred flows would hold up an urgent one (priority inversion).
    template <typename Lent>
    void lend(Lent lent) {
        if (waiting.empty() || free_ > 0) {
            return;  // a lane is free, and the most urgent flow will take it
        }
        int lowest = CONTROL;
        for (const Lane& lane : lanes) {
            lowest = std::max(lowest, lane.claim->wanted);
        }
        if (std::all_of(waiting.begin(), waiting.end(), [&](const Claim* c) { return c->level >= lowest; })) {
            return;
        }
        std::vector<const Lane*> held;
        for (const Lane& lane : lanes) {
            held.push_back(&lane);
        }
        std::sort(held.begin(), held.end(), [](const Lane* a, const Lane* b) { return a->taken < b->taken; });
        std::vector<int> levels;
        for (const Lane* lane : held) {
            levels.push_back(lane->claim->wanted);
        }
        std::vector<Claim*> urgent = waiting;
        const std::size_t most = std::min(urgent.size(), held.size());
        std::partial_sort(urgent.begin(), urgent.begin() + static_cast<std::ptrdiff_t>(most), urgent.end(),
                          [](const Claim* a, const Claim* b) { return a->before(*b); });
        for (std::size_t i = 0; i < most; ++i) {
            const int level = urgent[i]->level;
            const auto enough = std::count_if(levels.begin(), levels.end(), [&](int l) { return l <= level; });
            if (static_cast<std::size_t>(enough) > i) {
                continue;
            }
            const auto lane = std::find_if(levels.begin(), levels.end(), [&](int l) { return l > level; });
            *lane = level;
            Claim* holder = held[static_cast<std::size_t>(lane - levels.begin())]->claim;
            holder->borrow(level);
            lent(holder, urgent[i]);
        }
    }

   private:
    int free_ = 0;
    std::int64_t takes_ = 0;
    std::size_t turns_ = 0;
    std::vector<std::unique_ptr<Lane>> spares_;

    void take(Claim* claim, Lane* lane) {
        if (!lane->spare) {
            --free_;
        }
        lane->claim = claim;
        lane->taken = takes_++;
        claim->lane = lane;
    }

    // A lane that is at the flow's level already is preferred, because no rule has to change for it.
    Lane* next_lane(int level) {
        if (free_ == 0) {
            auto spare = std::make_unique<Lane>();
            spare->route = lanes[turns_++ % lanes.size()].route;
            spare->spare = true;
            spares_.push_back(std::move(spare));
            return spares_.back().get();
        }
        Lane* first = nullptr;
        for (Lane& lane : lanes) {
            if (lane.claim == nullptr) {
                if (lane.level == level) {
                    return &lane;
                }
                if (first == nullptr) {
                    first = &lane;
                }
            }
        }
        return first;
    }
};

}  // namespace mfs
