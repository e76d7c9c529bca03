// The load of each port, against which urgency is measured. Pure C++: `controller.ports` is the Python side.
//
// For S3 a port keeps how many bytes are due by any deadline. For S1 and S2, which go before S3, it measures
// rho: the share of its capacity that they take.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mfs {

using Ns = std::int64_t;

// The largest rho: at least 5 % of a port is always assumed free for S3. MLU divides by `1 - rho`.
constexpr double RHO_CAP = 0.95;

// The layer of early flows that hold up compute, whichever layer runs.
constexpr int BLOCKS_NOW = -1;

constexpr int NO_BATCH = -1;

// The bytes that a flow puts on a port. Ports are numbers, in the order of the capacities.
struct Part {
    int port;
    std::int64_t bytes;
};

using Load = std::vector<Part>;

// S3 that a port has to send by some deadline: bytes left, and flows.
struct Due {
    std::int64_t bytes;
    std::int64_t flows;
};

// How many active S1 and S2 flows of a batch hold up `layer`.
struct Early {
    int batch;
    int layer;
    std::int64_t flows;
};

// What is left to cross a port of `bytes_left` of a flow of `size` bytes, rounded down. No value is below 0.
inline std::int64_t left_on(std::int64_t load, std::int64_t bytes_left, std::int64_t size) {
    if (bytes_left == size) return load;
    std::int64_t product;
    if (!__builtin_mul_overflow(load, bytes_left, &product)) return product / size;
    return static_cast<std::int64_t>(static_cast<__int128>(load) * bytes_left / size);
}

// The loads of all ports.
//
// Capacities are in model bits/s, times in model nanoseconds, sizes in model bytes. The calls for a flow are
// submitted, moved (any number of times), finished, each with the same size and load. Throws
// `std::overflow_error` if a sum does not fit into 64 bits, and `std::logic_error` where it can tell that a
// flow was not submitted.
//
// Memory, per port: one entry per deadline of active S3, and one per batch and layer that active S1 and S2
// hold up. In all: one entry per batch that has active S1 or S2.
//
// What S1 and S2 moved is forgotten exponentially. `moved` of a port counts a byte that moved at time t as
// `exp((t - origin) / window)` bytes. So forgetting takes one division when a port is read, and nothing for
// the other ports.
class PortLoads {
  public:
    // Throws `std::invalid_argument` unless the capacities and the window are above 0.
    PortLoads(const std::vector<std::int64_t>& bps, std::int64_t rho_window_ns) : window_ns_(rho_window_ns) {
        if (rho_window_ns <= 0) {
            const std::string window = std::to_string(rho_window_ns);
            throw std::invalid_argument("rho_window_ns must be above 0, not " + window);
        }
        ports_.reserve(bps.size());
        for (const std::int64_t rate : bps) {
            if (rate <= 0) throw std::invalid_argument("a port has no capacity");
            ports_.push_back(Port{.bps = rate});
        }
    }

    int ports() const { return static_cast<int>(ports_.size()); }
    std::int64_t bps(int port) const { return ports_[port].bps; }

    // --- S3 ---------------------------------------------------------------------------------------------

    // An S3 flow becomes due (`sign` 1: submitted or taken back) or no longer is (-1: finished or put aside),
    // with `bytes_left` to go. Without a deadline it never counts.
    void due_changes(bool has_deadline, Ns deadline, std::int64_t size, std::int64_t bytes_left,
                     const Load& load, int sign) {
        if (!has_deadline) return;
        for (const Part& part : load) {
            const std::int64_t left = size ? left_on(part.bytes, bytes_left, size) : 0;
            std::vector<DueBy>& due = ports_[part.port].due;
            auto at = until(due, deadline);
            if (at == due.begin() || std::prev(at)->deadline != deadline) {
                if (sign < 0) throw std::logic_error("an S3 flow is taken off a port on which it is not due");
                at = due.insert(at, DueBy{deadline, 0, 0});
            } else {
                --at;
            }
            add(at->bytes, sign * left);
            at->flows += sign;
            if (at->flows == 0) due.erase(at);
        }
    }

    // A due S3 flow had `before` bytes left and now has `after`.
    void due_moved(Ns deadline, std::int64_t size, std::int64_t before, std::int64_t after,
                   const Load& load) {
        if (!size) return;
        for (const Part& part : load) {
            std::vector<DueBy>& due = ports_[part.port].due;
            const auto at = until(due, deadline);
            if (at == due.begin() || std::prev(at)->deadline != deadline) {
                throw std::logic_error("an S3 flow moved on a port on which it is not due");
            }
            add(std::prev(at)->bytes, left_on(part.bytes, after, size) - left_on(part.bytes, before, size));
        }
    }

    // What active S3 flows with this deadline or an earlier one have yet to send through `port`.
    Due due(int port, Ns deadline) const {
        Due sum{0, 0};
        for (const DueBy& due : ports_[port].due) {
            if (due.deadline > deadline) break;
            add(sum.bytes, due.bytes);
            sum.flows += due.flows;
        }
        return sum;
    }

    std::int64_t due_bytes(int port, Ns deadline) const { return due(port, deadline).bytes; }

    // --- S1 and S2 ----------------------------------------------------------------------------------------

    // The number of a batch. It holds until the last early flow of the batch has finished, and is never used
    // again, so ask for it before each `early_submitted`.
    int intern(const std::string& batch) {
        const auto [at, is_new] = numbers_.try_emplace(batch, next_batch_);
        if (is_new) {
            batches_.emplace(next_batch_, Batch{batch, 0});
            if (next_batch_ == std::numeric_limits<int>::max()) throw std::overflow_error("too many batches");
            ++next_batch_;
        }
        return at->second;
    }

    const std::string& batch_id(int batch) const { return batches_.at(batch).id; }

    // A flow of `batch` (`NO_BATCH`: none) that holds up `layer` is submitted.
    void early_submitted(int batch, int layer, std::int64_t size, const Load& load) {
        if (batch != NO_BATCH) ++batches_.at(batch).flows;
        for (const Part& part : load) {
            Port& port = ports_[part.port];
            if (size) add(port.waiting_bytes, part.bytes);
            if (batch != NO_BATCH) count(port.early, batch, layer);
        }
    }

    void early_moved(Ns now, std::int64_t size, std::int64_t before, std::int64_t after, const Load& load) {
        const double weight = weight_of(now);
        if (!size) return;
        for (const Part& part : load) {
            const std::int64_t gone = left_on(part.bytes, before, size) - left_on(part.bytes, after, size);
            moves(ports_[part.port], gone, weight);
        }
    }

    // The last `before` bytes of a flow have moved. The other values are as at `early_submitted`.
    void early_finished(Ns now, int batch, int layer, std::int64_t size, std::int64_t before,
                        const Load& load) {
        const double weight = weight_of(now);
        for (const Part& part : load) {
            Port& port = ports_[part.port];
            if (size) moves(port, left_on(part.bytes, before, size), weight);
            if (batch != NO_BATCH) count_off(port.early, batch, layer);
        }
        if (batch != NO_BATCH && --batches_.at(batch).flows == 0) {
            numbers_.erase(batch_id(batch));
            batches_.erase(batch);
        }
    }

    // The share of the port that S1 and S2 take, at most `RHO_CAP`.
    //
    // It is the bytes that they moved, forgotten exponentially over the window, plus the bytes that are
    // submitted and have yet to move, divided by the bytes that the port can carry in one window.
    double rho(int number, Ns now) {
        const double weight = weight_of(now);  // first, as it may rescale what has moved
        const Port& port = ports_[number];
        const double early_bytes = static_cast<double>(port.waiting_bytes) + port.moved / weight;
        const auto bits = static_cast<double>(static_cast<__int128>(port.bps) * window_ns_);
        return std::min(RHO_CAP, early_bytes * 8.0 * 1e9 / bits);
    }

    // The first batch, port by port, with an early flow for the layer that is `layers_ahead` of the one that
    // the batch is at. 0 is also an earlier layer, and `BLOCKS_NOW`. `NO_BATCH` if there is none.
    // `layer_of(batch)` is an `std::optional<int>`: a batch without a layer does not count.
    template <typename LayerOf>
    int first_early(const Load& load, int layers_ahead, LayerOf layer_of) const {
        for (const Part& part : load) {
            int batch = NO_BATCH;
            std::optional<int> at;
            for (const Early& one : ports_[part.port].early) {
                if (one.batch != batch) at = layer_of(batch = one.batch);
                if (!at) continue;
                const int ahead = one.layer == BLOCKS_NOW ? 0 : std::max(0, one.layer - *at);
                if (ahead == layers_ahead) return batch;
            }
        }
        return NO_BATCH;
    }

    // The active S1 and S2 flows on `port`. Entries of one batch stand together; batches are in the order in
    // which they came to the port.
    std::span<const Early> early(int port) const { return ports_[port].early; }

  private:
    struct DueBy {
        Ns deadline;
        std::int64_t bytes;
        std::int64_t flows;
    };

    struct Port {
        std::int64_t bps;
        std::int64_t waiting_bytes = 0;
        double moved = 0.0;
        // By deadline. All flows of a request share one, so this is short, and adding up is fast.
        std::vector<DueBy> due = {};
        std::vector<Early> early = {};
    };

    struct Batch {
        std::string id;
        std::int64_t flows;
    };

    static constexpr double MOST_WINDOWS = 500;  // exp(500), times any number of bytes, is still finite

    static void add(std::int64_t& sum, std::int64_t more) {
        if (__builtin_add_overflow(sum, more, &sum)) throw std::overflow_error("too many bytes on a port");
    }

    // The first entry after those of `deadline` and of earlier ones.
    static std::vector<DueBy>::iterator until(std::vector<DueBy>& due, Ns deadline) {
        return std::upper_bound(due.begin(), due.end(), deadline,
                                [](Ns wanted, const DueBy& one) { return wanted < one.deadline; });
    }

    static void count(std::vector<Early>& early, int batch, int layer) {
        auto at = std::find_if(early.begin(), early.end(), [=](const Early& one) {
            return one.batch == batch;
        });
        for (; at != early.end() && at->batch == batch; ++at) {
            if (at->layer == layer) {
                ++at->flows;
                return;
            }
        }
        early.insert(at, Early{batch, layer, 1});
    }

    static void count_off(std::vector<Early>& early, int batch, int layer) {
        const auto at = std::find_if(early.begin(), early.end(), [=](const Early& one) {
            return one.batch == batch && one.layer == layer;
        });
        if (at == early.end()) throw std::logic_error("an early flow finished on a port that it is not on");
        if (--at->flows == 0) early.erase(at);
    }

    static void moves(Port& port, std::int64_t bytes, double weight) {
        add(port.waiting_bytes, -bytes);
        port.moved += static_cast<double>(bytes) * weight;
    }

    // The weight in `moved` of a byte that moves at `now`.
    double weight_of(Ns now) {
        if (now != weighed_ns_) {
            double windows = static_cast<double>(now - origin_ns_) / static_cast<double>(window_ns_);
            if (windows > MOST_WINDOWS) {
                const double faded = std::exp(-windows);
                for (Port& port : ports_) port.moved *= faded;
                origin_ns_ = now;
                windows = 0.0;
            }
            weighed_ns_ = now;
            weight_ = std::exp(windows);
        }
        return weight_;
    }

    std::int64_t window_ns_;
    Ns origin_ns_ = 0;
    Ns weighed_ns_ = 0;
    double weight_ = 1.0;
    std::vector<Port> ports_;
    std::unordered_map<std::string, int> numbers_;
    std::unordered_map<int, Batch> batches_;
    int next_batch_ = 0;
};

}  // namespace mfs
