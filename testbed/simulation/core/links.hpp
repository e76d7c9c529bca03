// Fluid links: strict priority by place, max-min fair among equals, recomputed only where it matters.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "testbed/simulation/core/groups.hpp"
#include "testbed/simulation/core/places.hpp"
#include "testbed/simulation/core/slots.hpp"

namespace mfs {

// The streams on ports whose capacities are in bytes per nanosecond.
//
// A stream drains over fixed ports at one rate. Streams of one place share fairly, and a smaller place goes
// before a larger one on every port that they have in common. Sizes are in bytes, rates in bytes per
// nanosecond, times in whole nanoseconds: a stream's end is rounded up.
//
// Changes (`add`, `move`, `take_finished`) only mark what they touch. `settle` works out the new rates once for
// all changes of a moment. A level that has something to send keeps the share `guarantee` of a port's rate,
// whatever the levels above have to send; what it does not use of that share is lost.
//
// `level_weights` (one for each level, 0: none; empty: none at all) make levels share a port instead of one going
// before the other. `weighted.cpp` says how. If there are `ordered_ports` (one number for each port, not 0: ordered),
// the order inside a level counts on these ports only. `at_hosts.cpp` says how.
//
// With `bundled`, streams over the same ports with the same place and cap are one row, a bundle: they have the
// same rate for as long as they stay together, so that rate is worked out once for all of them. Rates and bytes
// are the same but for rounding. These streams have no weights.
class Links {
  public:
    // Throws `std::invalid_argument` for a capacity that is not above 0, or for other weights than one for each level
    // or other `ordered_ports` than one for each port.
    Links(std::vector<double> capacity, double guarantee, bool bundled = false,
          const std::vector<double>& level_weights = {}, std::vector<int> ordered_ports = {});

    // Adds a stream of `size` bytes, above 0, over `count` different ports, and returns its number, which is
    // used again once `take_finished` has returned it. Its rate is at most `cap` (infinity: none). With
    // `weights` (null: all 1), it takes that many times its rate on each port. It begins at the next `settle`.
    // Throws `std::invalid_argument` for a size or weight that is not above 0, or for weights in a bundle, and
    // `std::out_of_range` for a level or port that there is not, or for a level without a weight between others
    // with one.
    int add(const int* ports, int count, double size, Place place, double cap, const double* weights);

    // Gives a stream this place and cap from the next `settle` on. Nothing changes if it has them already.
    void move(int stream, Place place, double cap);

    // A group of streams that have one order, which can be changed for all of them at once. Only for bundles.
    // Its number is used again after `drop_group`, which needs it to be without streams.
    int add_group(double order);
    void set_order(int group, double order);
    void drop_group(int group);

    // Adds the bytes left of the streams of a group to `out`, by port.
    void add_left_on_ports(int group, Ns now, double* out) const;

    // When the next stream ends if nothing changes; NEVER if none does. Call `settle` before.
    Ns next_end_ns() const { return next_ns_; }

    // Removes the streams that have ended by `now`, and appends their numbers to `out` in order of addition.
    void take_finished(Ns now, std::vector<int>& out);

    // Works out the rates that hold from `now` on.
    void settle(Ns now);

    // Bytes left of a stream, which may have been added just now, as of `now`.
    double left_bytes(int stream, Ns now) const;

    // The number of streams, the largest number that any stream has had plus 1, and the number of ports.
    int size() const { return active_; }
    int rows() const { return static_cast<int>(bundled_ ? members_.size() : streams_.size()); }
    int ports() const { return static_cast<int>(ports_.size()); }

    double capacity(int port) const { return ports_[port].capacity; }

    // Gives a port this rate from the next `settle` on. With 0, nothing passes. Throws `std::invalid_argument`
    // for a rate below 0.
    void set_capacity(int port, double rate);

    // Rate of a stream as of the last `settle`, in bytes per nanosecond at weight 1.
    double rate(int stream) const;

    // Writes the bytes that each port has sent so far, by level: `out[port * LEVELS + level]`.
    void sent_bytes(Ns now, double* out);

    // How long `port` would need at its full rate for what its streams have left, those just added included.
    // A port with a rate of 0 is busy for ever.
    double busy_ns(Ns now, int port);

    // How often rates have been worked out so far, and for how many streams in all; a bundle counts once.
    std::int64_t settlings() const { return settlings_; }
    std::int64_t worked_out() const { return worked_out_; }

    // The largest share of its capacity that any port was ever given to carry.
    double fullest() const { return fullest_; }

    // The same for now, added up from the rates of the streams. Call `settle` before.
    double fullest_now() const;

    // How many streams are slower than the levels and max-min fairness would have them, by more than the relative
    // `tolerance`. Call `settle` before.
    int held_back(double tolerance) const;

    // How often the rates of weighted levels, or of ordered ports, did not settle.
    std::int64_t unsettled() const { return unsettled_; }

    // Multiplies the rate of a stream, with its bundle, or of all of them by `factor`, which no sharing would do.
    // For tests of what notices it.
    void falsify(int stream, double factor) {
        const int row = bundled_ ? members_[stream].row : stream;
        streams_[row].rate *= factor;
        if (bundled_) note_state(row);
    }
    void falsify_all(double factor) {
        for (Stream& stream : streams_) stream.rate *= factor;
        for (int row = 0; row < static_cast<int>(bundles_.size()); ++row) note_state(row);
    }

  private:
    static constexpr double NO_ORDER = std::numeric_limits<double>::infinity();

    // A stream on a port, by its number and that of the hop.
    struct Guest {
        int stream;
        int hop;
    };

    // What the sharing reads comes first, in one cache line. The same holds for `Stream`.
    struct alignas(64) Port {
        double capacity;
        double spare;
        double shared;      // by all weighted levels together
        double weight;      // of the streams that are not settled yet
        std::int64_t seen;  // the epoch that saw it last
        int waiting;        // the number of streams that are not settled yet
        int dirty;          // the first level to share anew; LEVELS: none
        int chain;          // in `chains_`: the last stream here that is being shared
        std::vector<Guest> guests[LEVELS];  // in the order in which they came
        double used[LEVELS];  // the rate of all streams of a level
        double sent[LEVELS];
    };

    // A port of a stream.
    struct Hop {
        double weight;
        int port;
    };

    // Has `left` bytes as of `since`, and moves at `rate` since then. For a bundle, both are of one member, and
    // `left` is that of the member that ends first; the weights of its hops are the number of members.
    struct alignas(64) Stream {
        double left;
        double rate;
        double fresh;  // the new rate while rates are worked out; below 0: not settled yet
        double order;
        double cap;
        Ns since;
        int first_hop;
        int hops;
        int level;  // NONE: the row is free, or the stream has not begun
    };

    // What a stream is to become at the next `settle`, or has become.
    struct Wanted {
        Place place;
        double cap;
        bool operator==(const Wanted&) const = default;
    };

    struct End {
        Ns end;
        std::int64_t serial;
        int stream;
        bool operator<(const End& other) const { return end != other.end ? end < other.end : serial < other.serial; }
    };

    struct Change {
        int stream;
        Place place;
        double cap;
    };

    struct Share {
        double share;
        int port;
    };

    // The port that leaves the least to each of its streams: `now`, and `share` when it came onto the heap.
    struct Bottleneck {
        double share;
        double now;
        int port;
    };

    // A stream by a number of it; equals keep the order in which they came.
    struct Ordered {
        double key;
        int at;
        int stream;

        bool operator<(const Ordered& other) const { return key != other.key ? key < other.key : at < other.at; }
    };

    // What streams of a bundle have in common: the number of their ports' sequence, level, order, cap and group.
    using Alike = std::tuple<int, int, double, double, int>;

    // A stream of a bundle. It ends when each member of `row` has been served `ends` bytes. While `row` is NONE,
    // the stream has not begun or is over, and `ends` is its size.
    struct Member {
        double ends;
        std::int64_t serial;  // in order of addition
        int row;
        int path;
    };

    // The members of a row by their ends, and the bytes that each member has been served since the row began.
    struct alignas(64) Bundle {
        double served;
        double sum_of_ends;
        double size;  // the number of members
        double first_end;  // of the members there were at the last settling
        std::set<std::pair<double, int>> members;
        Alike alike;
        int part, at;  // of its group: the part, and the place in its rows
    };

    // What a stream takes of a port, in bytes per nanosecond.
    struct Taken {
        double rate;
        int port;
    };

    // The groups of one order have had their turn: where they end in `moving` and `taken` of their level.
    struct Turn {
        double order;
        std::size_t moving;
        std::size_t taken;
    };

    // What `share_groups` last worked out for a level, one order after the other.
    struct Turns {
        std::vector<Turn> turns;
        std::vector<int> moving;   // the rows that have a rate
        std::vector<Taken> taken;  // in the order in which it was taken, so that spare rates come out equal again
        double first = NO_ORDER;  // the first order that has changed since
        bool missed = false;          // other sharing has come in between
    };

    // A stream on a port, and the one before it there.
    struct Chain {
        int stream;
        int before;
    };

    static constexpr int NONE = -1;
    int new_row(int hops);
    void take_in(Ns now);
    void enter(Ns now, const Change& added);
    void shift(Ns now, const Change& moved);

    void enter_ports(int number);
    void leave_ports(int number);
    void touch(const Stream& stream, int level);
    void bring_up_to(Ns now, int number);

    int add_member(const int* ports, int count, double size, Place place, double cap);
    void join(Ns now, const Change& added);
    void leave(Ns now, int member);
    int row_of(Ns now, const Alike& alike);
    void resize(int row, double more);
    void free_row(int row);
    void serve(Ns now, int row);
    void end_members(Ns now, std::vector<int>& out);
    void foresee_bundles(Ns now);
    double left_of(const Member& member, Ns now) const;
    void note_state(int row);
    double order_of(int row) const {
        const int group = groups_.empty() ? NO_GROUP : std::get<4>(bundles_[row].alike);
        return group == NO_GROUP ? streams_[row].order : groups_[group].order;
    }
    void changes_from(int level, double order);
    bool share_groups(int level);
    void take_turn(Turns& last, int level, std::size_t begin, std::size_t end);
    void take_plain_turn(Turns& last, std::size_t begin, std::size_t end);
    void share_pairs();
    void settle_pairs(Port& port, double rate);
    void end_turn(Turns& last, int level, double order, std::size_t taken);
    // A port with a smaller share of its rate left counts as full: 5 B/s of 400 Gb/s.
    static constexpr double FULL = 1e-10;
    static bool is_full(const Port& port) { return port.spare <= FULL * port.capacity; }
    void settle_all(Port& port, int level, double rate);

    void set_end(Ns now, int number);
    void order_ends();
    void rise(int place);
    void sink(int place);
    void forget_end(int stream);
    void foresee(Ns now, int stream);

    void work_out(Ns now);
    void prefetch(int number) const;
    void note_fullest(const Port& port);
    void share_level(int level);
    bool spread(int level);
    void open_port(Port& port, int level) const;
    void share_by_order(const std::vector<int>& streams, int level);
    void share_at_hosts(const std::vector<int>& streams);
    void find_slots(const std::vector<int>& streams);
    void fill_slots(const std::vector<int>& streams);
    void check_level(int level) const;
    bool is_weighted(int level) const { return level >= first_weighted_ && level <= last_weighted_; }
    void share_weighted();
    void spread_weighted();
    double share_once(int level, double step);
    double part(const Port& port, int level) const;
    double heaviest(const Port& port, double* used, double* most) const;
    void share(const int* begin, const int* end, int level, bool ends_free = false);
    void open_streams(const int* begin, const int* end, bool ends_free);
    void settle_stream(Stream& stream, double rate);
    Bottleneck next_bottleneck();
    void push_share(double share, int port);
    void pop_share();

    double guarantee_;
    bool bundled_;
    double level_weights_[LEVELS] = {};
    int first_weighted_ = LEVELS, last_weighted_ = NONE;
    std::vector<int> ordered_ports_;
    std::int64_t unsettled_ = 0;
    std::vector<Port> ports_;
    std::vector<Stream> streams_;
    std::vector<std::int64_t> seen_;    // the epoch that saw each stream last
    std::vector<std::int64_t> serial_;  // of each stream, in order of addition
    std::vector<int> heap_places_;      // of each stream
    std::vector<Wanted> wanted_;        // of each stream
    std::vector<Hop> hops_;
    std::vector<std::vector<int>> free_;  // by number of hops; a row keeps its hops for good
    std::vector<Change> added_;
    std::vector<Change> moved_;
    bool changed_ = false;
    int active_ = 0;
    Ns next_ns_ = NEVER;

    std::vector<End> heap_;
    std::vector<int> dirty_;  // ports

    // Only if streams are bundled. `bundles_` is by row.
    std::vector<Member> members_;
    std::vector<int> free_members_;
    std::vector<Bundle> bundles_;
    std::map<Alike, int> rows_alike_;
    std::map<std::vector<int>, int> path_numbers_;
    std::vector<std::vector<int>> paths_;
    std::vector<int> stale_;  // rows whose first end may have changed
    std::vector<OrderedGroup> groups_;
    std::vector<int> free_groups_;
    int ungrouped_[LEVELS] = {};  // the number of rows without a group
    Turns turns_[LEVELS];
    std::vector<char> full_;  // by port, for the order that has its turn
    std::vector<Taken>* taken_ = nullptr;  // where `settle_stream` notes what it takes
    std::vector<int> moved_before_;        // rows; kept only for its memory
    std::vector<Pair> pairs_;              // the same
    std::vector<Chain> chains_;   // used while rates are worked out

    std::int64_t epoch_ = 0;
    std::int64_t begun_ = 0;
    std::int64_t settlings_ = 0;
    std::int64_t worked_out_ = 0;
    double fullest_ = 0.0;
    // Used while rates are worked out, and kept only for their memory.
    std::vector<int> queue_;     // ports
    std::vector<int> affected_;  // streams
    std::vector<Slot> slots_;
    std::vector<WantedSlot> wanted_slots_;
    std::vector<int> slot_of_;     // by number of the hop
    std::vector<int> first_slot_;  // in `slot_of_`, by place in the list of streams
    std::vector<int> of_level_[LEVELS];  // the same by level; only of weighted levels
    std::vector<int> group_;
    std::vector<int> open_;     // ports
    std::vector<Share> shares_;  // a heap of ports by the share they leave
    std::vector<Ordered> by_order_;
    std::vector<Ordered> by_cap_;
};

}  // namespace mfs
