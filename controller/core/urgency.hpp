// Formulas without state, as `controller.urgency` documents them.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace mfs {

// Minimal link utilisation. Throws `std::invalid_argument` for a `rho` outside [0, 1).
inline double mlu(std::int64_t due_bytes, std::int64_t time_left_ns, std::int64_t bps, double rho) {
    if (!(rho >= 0.0 && rho < 1.0)) {
        throw std::invalid_argument("rho is a share below 1, not " + std::to_string(rho));
    }
    if (due_bytes <= 0) return 0.0;
    if (time_left_ns <= 0) return std::numeric_limits<double>::infinity();
    const auto due_bits = static_cast<double>(static_cast<__int128>(due_bytes) * 8 * 1'000'000'000);
    const auto bits = static_cast<double>(static_cast<__int128>(time_left_ns) * bps);
    return due_bits / (bits * (1.0 - rho));
}

}  // namespace mfs
