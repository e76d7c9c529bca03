// The rows that a run leaves behind, in columns, a block at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "testbed/simulation/core/agenda.hpp"

namespace mfs {

constexpr std::int64_t NONE = INT64_MIN;  // a cell without a value
constexpr int NO_NAME = -1;

// A column of strings as Arrow keeps it: where each begins, and all bytes.
struct Strings {
    std::vector<std::int32_t> ends{0};
    std::string bytes;

    void add(std::string_view text) {
        bytes.append(text);
        ends.push_back(static_cast<std::int32_t>(bytes.size()));
    }

    void add(std::string_view text, std::string_view more) {
        bytes.append(text);
        add(more);
    }

    void clear() {
        ends.assign(1, 0);
        bytes.clear();
    }
};

// Numbers for strings that occur again and again.
class Names {
   public:
    int number(const std::string& name) {
        const auto [at, is_new] = numbers_.try_emplace(name, static_cast<int>(all_.size()));
        if (is_new) {
            all_.push_back(name);
        }
        return at->second;
    }

    const std::vector<std::string>& all() const { return all_; }

   private:
    std::unordered_map<std::string, int> numbers_;
    std::vector<std::string> all_;
};

struct FlowRows {
    Strings id, coflow;
    std::vector<std::int8_t> stage, level_first, level_last, has_coflow;
    std::vector<std::int32_t> src, dst, batch, layer, promotions, path;
    std::vector<std::int64_t> size_bytes, request, deadline_ns, submit_ns, permit_ns, lane_wait_ns, finish_ns;

    std::size_t size() const { return stage.size(); }
    void clear() { *this = FlowRows(); }
};

struct DecisionRows {
    std::vector<std::int64_t> time_ns;
    Strings flow, reason;
    std::vector<std::int8_t> level_from, level_to;

    std::size_t size() const { return time_ns.size(); }
    void clear() { *this = DecisionRows(); }
};

struct SpanRows {
    std::vector<std::int8_t> kind;
    std::vector<std::int32_t> rank, label, batch, layer;
    std::vector<std::int64_t> start_ns, end_ns;

    std::size_t size() const { return kind.size(); }
    void clear() { *this = SpanRows(); }
};

// The kinds of `workers.spans.SpanKind`, in its order.
enum class SpanKind : std::int8_t { S1_WAIT, COMPUTE, COLLECTIVE, PAUSED, DECODE_STEP };

}  // namespace mfs
