// Fluid links: strict priority by place, max-min fair among equals, recomputed only where it matters.
#pragma once

#include <cstdint>
#include <vector>

namespace mfs {

using Ns = std::int64_t;

constexpr Ns NEVER = INT64_MAX;
constexpr int LEVELS = 8;

// Smaller first: level, then order inside the level.
struct Place {
    int level;
    double order;

    bool operator==(const Place&) const = default;
};

// The streams on ports whose capacities are in bytes per nanosecond.
//
// A stream drains over fixed ports at one rate. Streams of one place share fairly, and a smaller place goes
// before a larger one on every port that they have in common. Sizes are in bytes, rates in bytes per
// nanosecond, times in whole nanoseconds: a stream's end is rounded up.
//
// Changes (`add`, `move`, `take_finished`) only mark what they touch. `settle` works out the new rates once for
// all changes of a moment. A level that has something to send keeps the share `guarantee` of a port's rate,
// whatever the levels above have to send; what it does not use of that share is lost.
class Links {
  public:
    Links(std::vector<double> capacity, double guarantee);

    // Adds a stream of `size` bytes, above 0, over `count` different ports, and returns its number, which is
    // used again once `take_finished` has returned it. Its rate is at most `cap` (infinity: none). With
    // `weights` (null: all 1), it takes that many times its rate on each port. It begins at the next `settle`.
    int add(const int* ports, int count, double size, Place place, double cap, const double* weights);

    // Gives a stream this place and cap from the next `settle` on.
    void move(int stream, Place place, double cap);

    // When the next stream ends if nothing changes; NEVER if none does. Call `settle` before.
    Ns next_end_ns() const;

    // Removes the streams that have ended by `now`, and appends their numbers to `out` in order of addition.
    void take_finished(Ns now, std::vector<int>& out);

    // Works out the rates that hold from `now` on.
    void settle(Ns now);

    // Bytes left of a stream as of `now`.
    double left_bytes(int stream, Ns now) const;

    // The number of streams.
    int size() const;

    double capacity(int port) const;
    double rate(int stream) const;

    // Writes the bytes that each port has sent so far, by level: `out[port * LEVELS + level]`.
    void sent_bytes(Ns now, double* out);

    // How long `port` would need at its full rate for what its streams have left.
    double busy_ns(Ns now, int port);

    // How often rates have been worked out so far, and for how many streams in all.
    std::int64_t settlings() const;
    std::int64_t worked_out() const;

    // The largest share of its capacity that any port was ever given to carry.
    double fullest() const;

    // The same for now, added up from the rates of the streams. Call `settle` before.
    double fullest_now() const;

    // How many streams are slower than strict priority and max-min fairness would have them, by more than the
    // relative `tolerance`. Call `settle` before.
    int held_back(double tolerance) const;
};

}  // namespace mfs
