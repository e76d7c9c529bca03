// What Python sees of the core. `_core.pyi` has the types.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <optional>

#include "testbed/simulation/core/bindings.hpp"
#include "testbed/simulation/core/core.hpp"

namespace mfs {

namespace {

template <typename T>
nb::object array(std::vector<T>& column) {
    auto* kept = new std::vector<T>(std::move(column));
    nb::capsule owner(kept, [](void* memory) noexcept { delete static_cast<std::vector<T>*>(memory); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner));
}

nb::object strings(Strings& column) {
    nb::bytes bytes(column.bytes.data(), column.bytes.size());
    return nb::make_tuple(array(column.ends), bytes);
}

nb::dict columns(FlowRows& rows) {
    nb::dict block;
    block["id"] = strings(rows.id);
    block["stage"] = array(rows.stage);
    block["src"] = array(rows.src);
    block["dst"] = array(rows.dst);
    block["size_bytes"] = array(rows.size_bytes);
    block["batch"] = array(rows.batch);
    block["request"] = array(rows.request);
    block["layer"] = array(rows.layer);
    block["coflow"] = strings(rows.coflow);
    block["has_coflow"] = array(rows.has_coflow);
    block["deadline_ns"] = array(rows.deadline_ns);
    block["submit_ns"] = array(rows.submit_ns);
    block["permit_ns"] = array(rows.permit_ns);
    block["lane_wait_ns"] = array(rows.lane_wait_ns);
    block["finish_ns"] = array(rows.finish_ns);
    block["level_first"] = array(rows.level_first);
    block["level_last"] = array(rows.level_last);
    block["promotions"] = array(rows.promotions);
    block["path"] = array(rows.path);
    rows.clear();
    return block;
}

nb::dict columns(DecisionRows& rows) {
    nb::dict block;
    block["time_ns"] = array(rows.time_ns);
    block["flow"] = strings(rows.flow);
    block["level_from"] = array(rows.level_from);
    block["level_to"] = array(rows.level_to);
    block["reason"] = strings(rows.reason);
    rows.clear();
    return block;
}

nb::dict columns(SpanRows& rows) {
    nb::dict block;
    block["rank"] = array(rows.rank);
    block["kind"] = array(rows.kind);
    block["label"] = array(rows.label);
    block["batch"] = array(rows.batch);
    block["layer"] = array(rows.layer);
    block["start_ns"] = array(rows.start_ns);
    block["end_ns"] = array(rows.end_ns);
    rows.clear();
    return block;
}

// The core and its host refer to each other, so Python's garbage collector has to see what the core holds.
int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (!nb::inst_ready(self)) {
        return 0;
    }
    Core& core = *nb::inst_ptr<Core>(self);
    int stopped = 0;
    core.world.host.each([&](const char*, nb::object& call) {
        if (stopped == 0 && call.is_valid()) {
            stopped = visit(call.ptr(), arg);
        }
    });
    for (const Act& act : core.world.agenda.acts()) {
        if (stopped == 0 && (act.does == Does::CALL || act.does == Does::POST)) {
            stopped = visit(static_cast<PyObject*>(act.what), arg);
        }
    }
    return stopped;
}

int clear(PyObject* self) {
    Core& core = *nb::inst_ptr<Core>(self);
    core.world.host.each([](const char*, nb::object& call) { call.reset(); });
    return 0;
}

PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                       {Py_tp_clear, reinterpret_cast<void*>(clear)},
                       {0, nullptr}};

}  // namespace

void World::give_flows() {
    if (flows.size() > 0) {
        host.flows(columns(flows));
    }
}

void World::give_decisions() {
    if (decisions.size() > 0) {
        host.decisions(columns(decisions));
    }
}

void World::give_spans() {
    if (spans.size() > 0) {
        host.spans(columns(spans));
    }
}

}  // namespace mfs

namespace mfs {

void bind_core(nb::module_& module) {
    nb::module_::import_("controller._core");  // the type PortLoads is from there

    nb::class_<Options>(module, "Options")
        .def(nb::init<>())
        .def_rw("permit_ns", &Options::permit_ns)
        .def_rw("permit_kept_ns", &Options::permit_kept_ns)
        .def_rw("transfer_ns", &Options::transfer_ns)
        .def_rw("collective_ns", &Options::collective_ns)
        .def_rw("round_ns", &Options::round_ns)
        .def_rw("compute_ns", &Options::compute_ns)
        .def_rw("progress_ns", &Options::progress_ns)
        .def_rw("burst_bytes", &Options::burst_bytes)
        .def_rw("all_to_all_goodput", &Options::all_to_all_goodput)
        .def_rw("exact", &Options::exact)
        .def_rw("counts_bytes", &Options::counts_bytes)
        .def_rw("lanes", &Options::lanes)
        .def_rw("by_flow", &Options::by_flow)
        .def_rw("grouped", &Options::grouped)
        .def_rw("separate", &Options::separate)
        .def_rw("bundled", &Options::bundled)
        .def_rw("groups", &Options::groups)
        .def_rw("invariants", &Options::invariants)
        .def_rw("level_weights", &Options::level_weights)
        .def_rw("ordered_ports", &Options::ordered_ports)
        .def_rw("decisions", &Options::decisions);

    nb::class_<Faults>(module, "Faults")
        .def_rw("size_factor", &Faults::size_factor)
        .def_rw("rate_factor", &Faults::rate_factor)
        .def_rw("submit_late_ns", &Faults::submit_late_ns)
        .def_rw("lost_flow", &Faults::lost_flow)
        .def_rw("early_end", &Faults::early_end)
        .def_rw("past_act", &Faults::past_act);

    nb::class_<Core>(module, "Core", nb::type_slots(slots))
        .def(nb::init<std::vector<double>, double, std::vector<nb::object>, const Options&, nb::handle, PortLoads*>(),
             nb::arg("capacity"), nb::arg("guarantee"), nb::arg("links"), nb::arg("options"), nb::arg("host"),
             nb::arg("loads").none(), nb::keep_alive<1, 7>())
        // --- what Python tells it
        .def("set_enums", [](Core& core, std::vector<nb::object> stages, std::vector<nb::object> kinds) {
            core.world.set_enums(std::move(stages), std::move(kinds));
        })
        .def("add_group", [](Core& core, nb::handle name, const std::vector<int>& ranks) {
            core.exchanges.add_group(name, ranks);
        })
        .def("add_route", [](Core& core, std::vector<int> path, std::vector<int> ports, Ns latency) {
            return core.world.add_route(std::move(path), std::move(ports), latency);
        })
        .def("set_share", [](Core& core, int port, double share) { core.world.set_share(port, share); })
        .def("slow_down", [](Core& core, int rank, Ns from, std::optional<Ns> to, double factor) {
            core.world.slowdowns[rank].push_back({from, to.value_or(NEVER), factor});
        })
        .def("at", &Core::at)
        .def("post_at", &Core::post_at)
        .def("expect", [](Core& core, nb::handle plan, bool is_batch) { core.ranks.expect(plan, is_batch); })
        .def("post", [](Core& core, nb::handle transfer) { core.ranks.post(transfer); })
        .def("start", [](Core& core, nb::handle plan) { core.ranks.run(plan); })
        .def("go_on", [](Core& core, nb::handle plan) { core.ranks.go_on(plan); })
        .def("batch_started", [](Core& core, nb::handle batch) { core.transport.batch_started(batch); })
        .def("layer_advanced", [](Core& core, nb::handle batch, int layer) {
            core.transport.layer_advanced(batch, layer);
        })
        .def("left_on_ports", [](Core& core, nb::handle group) { return core.transport.left_on_ports(group); })
        .def("run", &Core::run)
        .def("settle", [](Core& core) { core.world.links.settle(core.world.now()); })
        .def("flush", &Core::flush)
        // --- what Python reads
        .def_prop_ro("ports", [](const Core& core) { return core.world.network_ports; })
        .def_prop_ro("now_ns", [](const Core& core) { return core.world.now(); })
        .def_prop_ro("late", [](const Core& core) { return core.world.agenda.late; })
        .def_prop_ro("moving", [](const Core& core) { return core.world.moving; })
        .def_prop_ro("messages", [](const Core& core) { return core.world.messages; })
        .def_prop_ro("submitted", [](const Core& core) { return core.transport.submitted(); })
        .def_prop_ro("disorder", [](const Core& core) { return core.transport.disorder; })
        .def_prop_ro("too_fast", [](const Core& core) { return core.transport.too_fast; })
        .def_prop_ro("settlings", [](const Core& core) { return core.world.links.settlings(); })
        .def_prop_ro("worked_out", [](const Core& core) { return core.world.links.worked_out(); })
        .def_prop_ro("fullest",
                     [](const Core& core) { return std::max(core.fullest, core.world.links.fullest()); })
        .def_ro("events", &Core::events)
        .def_ro("back", &Core::back)
        .def_prop_ro("slow_streams",
                     [](const Core& core) { return core.slow_streams + core.world.links.unsettled(); })
        .def_prop_ro("faults", [](Core& core) { return &core.world.faults; }, nb::rv_policy::reference_internal)
        .def("busy_ns", [](Core& core, int port) { return core.world.links.busy_ns(core.world.now(), port); })
        .def("sent_bytes",
             [](Core& core) {
                 auto* sent = new std::vector<double>(static_cast<std::size_t>(core.world.network_ports) * LEVELS);
                 core.world.links.sent_bytes(core.world.now(), sent->data());
                 nb::capsule owner(sent, [](void* memory) noexcept {
                     delete static_cast<std::vector<double>*>(memory);
                 });
                 return nb::cast(nb::ndarray<nb::numpy, double, nb::ndim<2>>(
                     sent->data(), {sent->size() / LEVELS, static_cast<std::size_t>(LEVELS)}, owner));
             })
        .def("owed_bytes",
             [](Core& core) {
                 std::vector<double> owed = core.transport.carried();
                 return array(owed);
             })
        .def("names", [](const Core& core, std::size_t from) {
            const auto& all = core.world.names.all();
            return std::vector<std::string>(all.begin() + static_cast<std::ptrdiff_t>(from), all.end());
        })
        .def("paths", [](const Core& core, std::size_t from) {
            const auto& all = core.world.paths();
            return std::vector<std::vector<int>>(all.begin() + static_cast<std::ptrdiff_t>(from), all.end());
        });
}

}  // namespace mfs
