// The bytes that ports let pass at once after they were idle: token buckets of `burst_bytes`.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "testbed/simulation/core/links.hpp"

namespace mfs {

// A bucket is full at the start. It fills at the port's rate while no connection uses the port, and what a
// connection lets pass at its beginning is taken from it.
class Bursts {
   public:
    Bursts(const Links& links, int ports, std::int64_t burst_bytes)
        : links_(links),
          burst_(static_cast<double>(burst_bytes)),
          ports_(burst_bytes > 0 ? static_cast<std::size_t>(ports) : 0, Bucket{static_cast<double>(burst_bytes)}) {}

    bool on() const { return burst_ > 0; }

    // The bytes that pass at once when a connection begins, as one of `sharing` that begin together.
    double credit(Ns now, const std::vector<int>& path, int sharing) {
        double least = INFINITY;
        for (const int port : path) {
            if (links_.capacity(port) == 0.0) {
                return 0.0;  // through a port that is down, nothing passes
            }
            least = std::min(least, std::min(at_begin_of(now, port) / sharing, tokens_of(now, port)));
        }
        return least;
    }

    // A connection begins, and `passed` of its bytes have passed at once.
    void begins(Ns now, const std::vector<int>& path, double passed) {
        for (const int port : path) {
            Bucket& bucket = ports_[port];
            bucket.tokens = tokens_of(now, port) - passed;
            bucket.idle_since = now;
            ++bucket.busy;
        }
    }

    void ends(Ns now, const std::vector<int>& path) {
        for (const int port : path) {
            --ports_[port].busy;
            ports_[port].idle_since = now;
        }
    }

   private:
    struct Bucket {
        double tokens = 0.0;
        Ns idle_since = 0;
        int busy = 0;
        Ns moment = -1;
        double at_moment = 0.0;
    };

    const Links& links_;
    double burst_;
    std::vector<Bucket> ports_;

    // The port's tokens when this moment began. Connections that begin together share them evenly.
    double at_begin_of(Ns now, int port) {
        Bucket& bucket = ports_[port];
        if (bucket.moment != now) {
            bucket.moment = now;
            bucket.at_moment = tokens_of(now, port);
        }
        return bucket.at_moment;
    }

    double tokens_of(Ns now, int port) const {
        const Bucket& bucket = ports_[port];
        if (bucket.busy > 0) {
            return bucket.tokens;
        }
        return std::min(burst_, bucket.tokens + static_cast<double>(now - bucket.idle_since) * links_.capacity(port));
    }
};

}  // namespace mfs
