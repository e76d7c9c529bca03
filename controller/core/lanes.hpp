// Lanes: which flow gets one, and which levels waiting flows lend. The same on every fabric.
//
// A lane carries one flow at a time from one rank to another. All lanes of the two ranks for a stage form a
// pool. A submitted flow has a claim to a lane of its pool and waits until one is free; the most urgent flow
// goes first. While all lanes of a pool are taken, a more urgent flow that waits lends its level to the lane
// that was taken first. A rank's side of a process group is a lane as well, in no pool.
//
// A fabric extends `Lane` and `Claim` with what it needs to carry flows, and owns them. What is here only points
// to them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace mfs {

using Ns = std::int64_t;

constexpr int CONTROL = 0;
constexpr int SCAVENGER = 7;
constexpr int NO_LEVEL = -1;
constexpr std::int64_t NO_RATE = -1;
constexpr const char* LEVEL_NAMES[] = {"CONTROL", "P1", "P2", "P3", "P4", "P5", "P6", "SCAVENGER"};

struct Claim;
struct Pool;

// The first and the last level of a flow, and how often it was promoted in between.
struct LevelTrail {
    int level_first = NO_LEVEL;
    int level_last = NO_LEVEL;
    int promotions = 0;

    // The flow is at `now` from this moment on. Its first level is not a promotion.
    void moved_to(int now) {
        if (level_last == NO_LEVEL) {
            level_first = now;
        } else if (now < level_last) {
            ++promotions;
        }
        level_last = now;
    }
};

// `level` is the level in force on it. `taken` is smaller for a lane of the pool that was taken earlier. A
// spare lane is made for one flow, beyond the lanes of the pool, and is gone when that flow is complete.
struct Lane {
    int level = CONTROL;
    bool spare = false;
    Claim* claim = nullptr;
    std::int64_t taken = 0;
};

// A flow that waits for a lane or has one, and the levels it was at. It is served at `wanted`, the more
// urgent of `level` (the scheduler's) and `lent`. `number` counts submissions; `rate` is in bits/s.
struct Claim : LevelTrail {
    std::string text;  // of the flow's id
    std::int64_t number = 0;
    Pool* pool = nullptr;
    Lane* lane = nullptr;
    int level = SCAVENGER;
    int wanted = SCAVENGER;
    int lent = NO_LEVEL;
    double order = 0.0;
    std::int64_t rate = NO_RATE;

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

    // Of waiting flows, the one that is served first: by level, exact order inside it, then submission.
    bool before(const Claim& other) const {
        return std::tie(level, order, number) < std::tie(other.level, other.order, other.number);
    }
};

// Which lane each waiting flow lends its level to: calls `lent(lane, flow)` with the numbers of both.
//
// `held` are the levels of a pool's lanes, all taken, in the order in which they were taken. `waiting` are the
// levels of the flows that wait, the most urgent first, at most one per lane. The i-th waiting flow needs i
// lanes that are at least as urgent as it is. If one is missing, the flow lends its level to the lane that was
// taken first among the less urgent ones. Without lending, a pool full of deferred flows would hold up an
// urgent one (priority inversion).
template <typename Lent>
void loans(std::vector<int> held, const std::vector<int>& waiting, Lent lent) {
    for (std::size_t i = 0; i < waiting.size(); ++i) {
        const int level = waiting[i];
        const auto enough = std::count_if(held.begin(), held.end(), [&](int other) { return other <= level; });
        if (static_cast<std::size_t>(enough) > i) {
            continue;
        }
        const auto lane = std::find_if(held.begin(), held.end(), [&](int other) { return other > level; });
        *lane = level;
        lent(static_cast<std::size_t>(lane - held.begin()), i);
    }
}

// The lanes from one rank to another for one stage, and the flows that wait for one of them.
//
// With `spare`, no flow ever waits. When all lanes are taken, `spare(claim, i)` makes another lane for that
// flow, over the path of lane `i`; the lanes take turns.
struct Pool {
    using Spare = std::function<Lane*(Claim& claim, std::size_t like)>;

    std::vector<Lane*> lanes;
    std::vector<Claim*> waiting;  // in the order of submission
    Spare spare;

    void add(Lane& lane) {
        lanes.push_back(&lane);
        ++free_;
    }

    // Gives free lanes to the flows that wait, the most urgent first; appends the flows that got one.
    void fill(std::vector<Claim*>& granted) {
        while (!waiting.empty() && (free_ > 0 || (spare && !lanes.empty()))) {
            const auto first = std::min_element(waiting.begin(), waiting.end(),
                                                [](const Claim* a, const Claim* b) { return a->before(*b); });
            Claim* claim = *first;
            Lane* lane = next_lane(*claim);
            waiting.erase(first);
            take(*claim, *lane);
            granted.push_back(claim);
        }
    }

    // The flow that had `lane` is complete.
    void release(Lane& lane) {
        lane.claim = nullptr;
        if (!lane.spare) {
            ++free_;
        }
    }

    // Lends the levels of waiting flows to flows that have a lane, and calls `lent(holder, waiting)` for each
    // loan. The holder keeps the level until it is complete.
    template <typename Lent>
    void lend(Lent lent) {
        if (waiting.empty() || free_ > 0) {
            return;  // a lane is free, and the most urgent flow will take it
        }
        int lowest = CONTROL;
        for (const Lane* lane : lanes) {
            lowest = std::max(lowest, lane->claim->wanted);
        }
        if (std::all_of(waiting.begin(), waiting.end(), [&](const Claim* c) { return c->level >= lowest; })) {
            return;
        }
        std::vector<Lane*> held = lanes;
        std::sort(held.begin(), held.end(), [](const Lane* a, const Lane* b) { return a->taken < b->taken; });
        std::vector<Claim*> urgent = waiting;
        const std::size_t most = std::min(urgent.size(), held.size());
        std::partial_sort(urgent.begin(), urgent.begin() + static_cast<std::ptrdiff_t>(most), urgent.end(),
                          [](const Claim* a, const Claim* b) { return a->before(*b); });
        urgent.resize(most);
        std::vector<int> held_levels, urgent_levels;
        for (const Lane* lane : held) {
            held_levels.push_back(lane->claim->wanted);
        }
        for (const Claim* claim : urgent) {
            urgent_levels.push_back(claim->level);
        }
        loans(std::move(held_levels), urgent_levels, [&](std::size_t lane, std::size_t i) {
            Claim& holder = *held[lane]->claim;
            holder.borrow(urgent[i]->level);
            lent(holder, *urgent[i]);
        });
    }

   private:
    int free_ = 0;
    std::int64_t takes_ = 0;
    std::size_t turns_ = 0;

    void take(Claim& claim, Lane& lane) {
        if (!lane.spare) {
            --free_;
        }
        lane.claim = &claim;
        lane.taken = takes_++;
        claim.lane = &lane;
    }

    // A lane that is at the flow's level already is preferred, because no rule has to change for it.
    Lane* next_lane(Claim& claim) {
        if (free_ == 0) {
            Lane* made = spare(claim, turns_ % lanes.size());
            ++turns_;
            made->spare = true;
            return made;
        }
        Lane* first = nullptr;
        for (Lane* lane : lanes) {
            if (lane->claim == nullptr) {
                if (lane->level == claim.wanted) {
                    return lane;
                }
                if (first == nullptr) {
                    first = lane;
                }
            }
        }
        return first;
    }
};

}  // namespace mfs
