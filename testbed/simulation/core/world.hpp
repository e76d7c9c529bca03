// What all parts of the core share: options, links, the agenda, Python's side, and the rows.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "controller/core/port_loads.hpp"
#include "testbed/simulation/core/agenda.hpp"
#include "testbed/simulation/core/links.hpp"
#include "testbed/simulation/core/rows.hpp"

namespace nb = nanobind;

namespace mfs {

constexpr int ALL_PEERS = -1;
constexpr int S1 = 0, S2 = 1, S3 = 2, BACKGROUND = 3;  // `controller.flow.Stage`, in its order
constexpr int STAGES = 4;
constexpr double UNBOUNDED = INFINITY;
constexpr double ROUNDING = 1e-6;  // the share of a byte count that floating-point rounding may lose
constexpr std::size_t BLOCK_ROWS = 16'384;  // rows that are given to Python at once
constexpr const char* STAGE_NAMES[] = {"S1", "S2", "S3", "BG"};

// The name of an attribute as a template argument.
template <std::size_t N>
struct Name {
    char text[N];
    constexpr Name(const char (&name)[N]) { std::copy_n(name, N, text); }
};

// An attribute of a Python object. Python's string for the name is made once, which takes half of the time.
template <Name name>
nb::object get(nb::handle object) {
    static PyObject* const key = PyUnicode_InternFromString(name.text);
    PyObject* const found = PyObject_GetAttr(object.ptr(), key);
    if (found == nullptr) {
        throw nb::python_error();
    }
    return nb::steal(found);
}

inline std::int64_t number_or(nb::handle value, std::int64_t none) {
    return value.is_none() ? none : nb::cast<std::int64_t>(value);
}

inline std::string_view text_of(nb::handle text) {
    Py_ssize_t size = 0;
    const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (bytes == nullptr) {
        throw nb::python_error();
    }
    return {bytes, static_cast<std::size_t>(size)};
}

inline void add_load(Load& load, const std::vector<int>& links, std::int64_t bytes) {
    for (const int link : links) {
        const auto at = std::find_if(load.begin(), load.end(), [&](const Part& part) { return part.port == link; });
        if (at == load.end()) {
            load.push_back({link, bytes});
        } else {
            at->bytes += bytes;
        }
    }
}

// `testbed.job.Overheads` and `SimulationOptions`, as far as the core reads them.
struct Options {
    Ns permit_ns = 0, permit_kept_ns = 0, transfer_ns = 0, collective_ns = 0, round_ns = 0, compute_ns = 0;
    Ns progress_ns = 1'000'000;
    std::int64_t burst_bytes = 0;
    double all_to_all_goodput = 1.0;
    bool exact = false;         // policies get their exact order, and can pace flows
    bool counts_bytes = false;  // of all flows in the loads of ports, instead of the scheduler, which hears no progress
    bool lanes = true;
    bool by_flow = false;    // a path is chosen for each flow
    bool grouped = false;    // symmetric collectives go as one stream
    bool separate = false;   // each stage has all links to itself
    bool bundled = false;    // streams that are alike have one rate
    bool groups = false;     // the policy places groups of flows; needs `bundled`
    bool invariants = true;
    bool decisions = true;  // keep them
    std::vector<double> level_weights;  // of `Links`, as the next
    std::vector<int> ordered_ports;
};

// The path of a connection. `ports` are its ports in the network, `path` the links of the topology that they
// stand for; `narrowest` is in bytes per nanosecond.
struct Route {
    std::vector<int> ports;
    std::vector<int> path;
    int name = 0;
    double narrowest = 0.0;
    double carried = 0.0;
    Ns latency = 0;  // from when the last byte of a message has left to its arrival

    bool crosses() const { return !ports.empty(); }
};

// The verdict on all flows of a stage of a batch, if the policy gives one.
struct Standing {
    bool asked = false, given = false;
    int level = SCAVENGER;
    double order = 0.0;
    std::int64_t rate = NO_RATE;
    std::string reason;
};

// A batch or fetch plan, by its id. `none` stands for flows without one.
struct BatchInfo {
    nb::object id;
    std::string text;
    int name = NO_NAME;
    Standing standing[STAGES];
};

// What to break in a run, so that tests can see the invariants fail.
struct Faults {
    double size_factor = 1.0;     // of every stream
    double rate_factor = 1.0;     // of every rate, after each settling
    Ns submit_late_ns = 0;        // how much later than it was a submission is noted
    std::string lost_flow;        // the id of a flow that gets no row
    std::int64_t early_end = -1;  // the how-manieth look at the next end says that it was at 5 ns
    std::int64_t past_act = -1;   // the first act for now, from this one on, is planned for 1 ns earlier
};

// `workers.slowdown.Slowdown`: compute takes `factor` times as long. `to` is NEVER if it lasts to the end. With an
// infinite factor the rank is paused, and begins nothing.
struct Slowdown {
    Ns from, to;
    double factor;
};

// Calls of the Python side (`testbed.simulation.host`).
struct Host {
    nb::object lane_routes, flow_route, member_routes, share_routes, structure, transfer_of;
    nb::object standing, submit, completion, progress, tick, next_tick_ns, layer_advanced, batch_started;
    nb::object layer_begun, paused, rank_done, first_token, arrived, finished, report, stuck;
    nb::object look, flows, decisions, spans;

    explicit Host(nb::handle host) {
        each([&](const char* name, nb::object& call) { call = host.attr(name); });
    }

    template <typename Do>
    void each(Do what) {
        what("lane_routes", lane_routes);
        what("flow_route", flow_route);
        what("member_routes", member_routes);
        what("share_routes", share_routes);
        what("structure", structure);
        what("transfer_of", transfer_of);
        what("standing", standing);
        what("submit", submit);
        what("completion", completion);
        what("progress", progress);
        what("tick", tick);
        what("next_tick_ns", next_tick_ns);
        what("layer_advanced", layer_advanced);
        what("batch_started", batch_started);
        what("layer_begun", layer_begun);
        what("paused", paused);
        what("rank_done", rank_done);
        what("first_token", first_token);
        what("arrived", arrived);
        what("finished", finished);
        what("report", report);
        what("stuck", stuck);
        what("look", look);
        what("flows", flows);
        what("decisions", decisions);
        what("spans", spans);
    }
};

struct World {
    Options options;
    Host host;
    Faults faults;
    Agenda agenda;
    Links links;
    std::vector<Route> routes;
    std::vector<nb::object> link_names;
    int network_ports;
    std::vector<double> nominal;  // the rates of ports without a fault, in bytes per nanosecond
    int ports_down = 0;
    std::map<int, std::vector<Slowdown>> slowdowns;  // by rank
    bool strict;                 // no level is guaranteed a share of a port
    PortLoads* loads = nullptr;  // null: no policy reads them
    BatchInfo no_batch;
    Names names;
    FlowRows flows;
    DecisionRows decisions;
    SpanRows spans;
    std::int64_t flow_rows = 0, messages = 0, moving = 0;
    bool told = true;  // Python was called since `finished` was last asked

    World(const std::vector<double>& capacity, double guarantee, std::vector<nb::object> names_of_links,
          const Options& chosen, nb::handle python)
        : options(chosen),
          host(python),
          links(capacity, guarantee, chosen.bundled, chosen.level_weights, chosen.ordered_ports),
          link_names(std::move(names_of_links)),
          network_ports(static_cast<int>(capacity.size())),
          nominal(capacity),
          strict(guarantee <= 0.0) {}

    Ns now() const { return agenda.now; }

    void at(Ns time, Does does, void* what, std::int64_t first = 0, std::int64_t second = 0) {
        if (faults.past_act >= 0 && --faults.past_act < 0) {
            if (time == now()) {
                --time;
            } else {
                faults.past_act = 0;
            }
        }
        agenda.at(time, does, what, first, second);
    }

    // How long compute of so many seconds takes, with what the machine adds to it. Rounds half to even.
    Ns takes_ns(double seconds) const {
        return static_cast<Ns>(std::nearbyint(seconds * 1e9)) + (seconds > 0 ? options.compute_ns : 0);
    }

    // When compute of so many seconds ends on a rank, if it starts at `start`: as `workers.slowdown.ends_ns`.
    Ns ends_ns(int rank, Ns start, double seconds) const {
        const Ns takes = takes_ns(seconds);
        const auto known = slowdowns.find(rank);
        return known == slowdowns.end() ? start + takes : ends_slowed(known->second, start, takes);
    }

    // When a rank may go on that would do so now: later if it is paused.
    Ns paused_until(int rank) const {
        const auto known = slowdowns.find(rank);
        if (known != slowdowns.end()) {
            for (const Slowdown& slow : known->second) {
                if (std::isinf(slow.factor) && slow.from <= now() && now() < slow.to) {
                    return slow.to;
                }
            }
        }
        return now();
    }

    // Lets a port carry this share of its rate; 0: nothing passes.
    void set_share(int port, double share) {
        ports_down += (share == 0.0) - (links.capacity(port) == 0.0);
        links.set_capacity(port, share == 1.0 ? nominal[port] : share * nominal[port]);
    }

    BatchInfo* batch(nb::handle id) {
        if (id.is_none()) {
            return &no_batch;
        }
        std::string text = nb::cast<std::string>(id);
        auto& known = batches_[text];
        if (known == nullptr) {
            known = std::make_unique<BatchInfo>();
            known->id = nb::borrow(id);
            known->name = names.number(text);
            known->text = std::move(text);
        }
        return known.get();
    }

    void span(int rank, SpanKind kind, int label, int batch, int layer, Ns start) {
        span_until(now(), rank, kind, label, batch, layer, start);
    }

    void span_until(Ns end, int rank, SpanKind kind, int label, int batch, int layer, Ns start) {
        spans.rank.push_back(rank);
        spans.kind.push_back(static_cast<std::int8_t>(kind));
        spans.label.push_back(label);
        spans.batch.push_back(batch);
        spans.layer.push_back(layer);
        spans.start_ns.push_back(start);
        spans.end_ns.push_back(end);
        if (spans.size() >= BLOCK_ROWS) {
            give_spans();
        }
    }

    int network_port(int stage, int link) const {
        return options.separate ? stage * static_cast<int>(link_names.size()) + link : link;
    }

    int add_route(std::vector<int> path, std::vector<int> ports, Ns latency) {
        Route route;
        route.latency = latency;
        route.name = path_number(path);
        route.narrowest = ports.empty() ? 0.0 : INFINITY;
        for (const int port : ports) {
            route.narrowest = std::min(route.narrowest, nominal[port]);
        }
        route.path = std::move(path);
        route.ports = std::move(ports);
        routes.push_back(std::move(route));
        return static_cast<int>(routes.size()) - 1;
    }

    // The number of a sequence of links in the rows.
    int path_number(const std::vector<int>& path) {
        const auto [at, is_new] = path_numbers_.try_emplace(path, static_cast<int>(paths_.size()));
        if (is_new) {
            paths_.push_back(path);
        }
        return at->second;
    }

    const std::vector<std::vector<int>>& paths() const { return paths_; }

    // A load for Python: bytes by the name of the link.
    nb::dict as_dict(const Load& load) const {
        nb::dict named;
        for (const Part& part : load) {
            named[link_names[part.port]] = part.bytes;
        }
        return named;
    }

    int stage(nb::handle stage) const { return number_of(stage, stages_); }
    int kind(nb::handle kind) const { return number_of(kind, kinds_); }
    void set_enums(std::vector<nb::object> stages, std::vector<nb::object> kinds) {
        stages_ = std::move(stages);
        kinds_ = std::move(kinds);
    }

    void give_flows();
    void give_decisions();
    void give_spans();

   private:
    std::unordered_map<std::string, std::unique_ptr<BatchInfo>> batches_;
    std::map<std::vector<int>, int> path_numbers_;
    std::vector<std::vector<int>> paths_;
    std::vector<nb::object> stages_, kinds_;  // the members of Python's enums

    static Ns ends_slowed(const std::vector<Slowdown>& all, Ns now, Ns takes) {
        double left = static_cast<double>(takes);
        for (const Slowdown& slow : all) {
            if (slow.to <= now) {
                continue;
            }
            const Ns before = std::max<Ns>(0, slow.from - now);
            if (left <= static_cast<double>(before)) {
                break;
            }
            now += before;
            left -= static_cast<double>(before);
            const double done = slow.to == NEVER ? INFINITY : static_cast<double>(slow.to - now) / slow.factor;
            if (left <= done) {
                return now + static_cast<Ns>(std::nearbyint(left * slow.factor));
            }
            now = slow.to;
            left -= done;
        }
        return now + static_cast<Ns>(std::nearbyint(left));
    }

    static int number_of(nb::handle member, const std::vector<nb::object>& members) {
        for (std::size_t i = 0; i < members.size(); ++i) {
            if (members[i].is(member)) {
                return static_cast<int>(i);
            }
        }
        throw nb::value_error("an enum member that the core does not know");
    }
};

}  // namespace mfs
