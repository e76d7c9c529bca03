// Lanes for Python. The stub `controller/_core.pyi` says what the classes do.
//
// Lanes, claims and pools point to each other. A claim keeps its pool and its lane alive, a pool its lanes, and
// `Claims` the active claims. The pointers back to a claim keep nothing alive: the claim takes them away when it
// ends. So no cycle of references is ever made.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "controller/core/bindings.hpp"
#include "controller/core/claims.hpp"
#include "controller/core/expected_load.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace mfs {

namespace {

// The types of `controller.flow` that are made here. They live as long as the process.
struct Vocabulary {
    nb::object decision;
    std::vector<nb::object> levels;

    Vocabulary() {
        const nb::module_ flow = nb::module_::import_("controller.flow");
        decision = flow.attr("Decision");
        for (nb::handle level : flow.attr("Level")) {
            levels.push_back(nb::borrow(level));
        }
    }
};

const Vocabulary& vocabulary() {
    static const Vocabulary* const all = new Vocabulary;
    return *all;
}

nb::object level_or_none(int level) {
    return level == NO_LEVEL ? nb::none() : vocabulary().levels[static_cast<std::size_t>(level)];
}

int level_from(int given) {
    if (given < CONTROL || given > SCAVENGER) {
        throw nb::value_error("there is no such level");
    }
    return given;
}

nb::str text(std::string_view text) { return nb::str(text.data(), text.size()); }

struct NamedLane : Lane {
    std::string name;
    nb::object ports;
    bool pooled = false;

    NamedLane(std::string named, nb::object crossed, bool is_spare) : name(std::move(named)), ports(crossed) {
        spare = is_spare;
    }

    // Raises `LaneError` if a flow or a pool has the lane.
    void expect_new() const {
        if (pooled || claim != nullptr) {
            throw LaneError("lane '" + name + "' is in use already");
        }
    }
};

struct NamedClaim : Claim {
    nb::object pool_kept, lane_kept;

    explicit NamedClaim(std::string id) { text = std::move(id); }
    NamedClaim(const NamedClaim&) = delete;
    ~NamedClaim() { leave(*this); }

    std::vector<nb::handle> held() const { return {pool_kept, lane_kept}; }
};

struct NamedPool : Pool {
    nb::list lanes_kept;
    nb::object callback;  // makes spare lanes, unless it is None

    explicit NamedPool(nb::object make_spare) : callback(make_spare) {
        if (!callback.is_none()) {
            spare = [this](Claim& claim, std::size_t like) {
                nb::object made = callback(like);
                auto& lane = nb::cast<NamedLane&>(made);
                lane.expect_new();
                static_cast<NamedClaim&>(claim).lane_kept = std::move(made);
                return &lane;
            };
        }
    }
    NamedPool(const NamedPool&) = delete;

    void add(NamedLane& lane) {
        lane.expect_new();
        lane.pooled = true;
        lanes_kept.append(nb::find(lane));
        Pool::add(lane);
        std::vector<int> path;
        for (nb::handle port : lane.ports) {
            if (!port_numbers_.contains(port)) {
                port_numbers_[port] = port_names_.size();
                port_names_.append(port);
            }
            path.push_back(nb::cast<int>(nb::object(port_numbers_[port])));
        }
        expected_.add(path);
        load_size_ = -1;
    }

    nb::dict load(std::int64_t size) {
        if (size < 0) {
            throw nb::value_error("a flow has no fewer than 0 bytes");
        }
        if (load_size_ != size) {
            load_size_ = size;
            load_ = nb::dict();
            for (const Part& part : expected_.of(size)) {
                load_[port_names_[part.port]] = part.bytes;
            }
        }
        return load_;
    }

    std::vector<nb::handle> held() const { return {lanes_kept, callback}; }

  private:
    nb::dict port_numbers_;
    nb::list port_names_;
    ExpectedLoad expected_;
    std::int64_t load_size_ = -1;
    nb::dict load_;  // of a flow of that size
};

nb::object found(const Claim* claim) {
    return claim == nullptr ? nb::none() : nb::find(static_cast<const NamedClaim*>(claim));
}

nb::list found(const std::vector<Claim*>& claims) {
    nb::list all;
    for (const Claim* claim : claims) {
        all.append(found(claim));
    }
    return all;
}

struct NamedClaims : Claims {
    nb::dict active;      // by flow id
    nb::object callback;  // is told of each change of a level

    explicit NamedClaims(nb::object changed)
        : Claims([this](Ns now, const Claim& claim, int before, std::string_view reason) {
              callback(vocabulary().decision("time_ns"_a = now, "flow"_a = claim.text,
                                             "level_from"_a = level_or_none(before),
                                             "level_to"_a = level_or_none(claim.wanted),
                                             "reason"_a = text(reason)));
          }),
          callback(changed) {}
    NamedClaims(const NamedClaims&) = delete;

    void wait(NamedClaim& claim, NamedPool& pool) {
        expect_inactive(claim);
        submit(claim, pool);
        claim.pool_kept = nb::find(pool);
        keep(claim);
    }

    void take(NamedClaim& claim, NamedLane& lane) {
        if (lane.pooled) {
            throw LaneError("lane '" + lane.name + "' is in a pool");
        }
        expect_inactive(claim);
        submit_on(claim, lane);
        claim.lane_kept = nb::find(lane);
        keep(claim);
    }

    nb::list obey(nb::iterable assignments) {
        Heard heard;
        Ns now = 0;
        for (nb::handle said : assignments) {
            auto& claim = nb::cast<NamedClaim&>(nb::object(active[said.attr("flow")]));
            const nb::object rate = said.attr("rate_bps");
            now = nb::cast<Ns>(said.attr("time_ns"));
            hear(now, claim, level_from(nb::cast<int>(said.attr("level"))), nb::cast<double>(said.attr("order")),
                 rate.is_none() ? NO_RATE : nb::cast<std::int64_t>(rate),
                 nb::cast<std::string>(said.attr("reason")), heard);
        }
        lend_all(now, heard);
        return found(heard.moved);
    }

    nb::list lend_from(Ns now, NamedPool& pool) {
        std::vector<Claim*> moved;
        lend(now, pool, moved);
        return found(moved);
    }

    nb::object on_a_lane(const std::string& flow) const {
        const nb::object claim = active.get(text(flow), nb::none());
        if (claim.is_none() || nb::cast<NamedClaim&>(claim).lane == nullptr) {
            throw LaneError("flow '" + flow + "' has no lane");
        }
        return claim;
    }

    nb::object complete(const std::string& flow) {
        nb::object claim = on_a_lane(flow);
        nb::del(active[text(flow)]);
        leave(nb::cast<NamedClaim&>(claim));
        return claim;
    }

    std::vector<nb::handle> held() const { return {active, callback}; }

  private:
    void expect_inactive(const NamedClaim& claim) const {
        if (active.contains(text(claim.text))) {
            throw LaneError("flow '" + claim.text + "' is submitted twice");
        }
    }

    void keep(NamedClaim& claim) { active[text(claim.text)] = nb::find(claim); }
};

// A callback can refer back to what calls it. These let the garbage collector find such a cycle, and break it.
template <typename T>
int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        for (nb::handle each : nb::inst_ptr<T>(self)->held()) {
            Py_VISIT(each.ptr());
        }
    }
    return 0;
}

template <typename T>
int drop_callback(PyObject* self) {
    if (nb::inst_ready(self)) {
        nb::object dropped = nb::none();
        std::swap(dropped, nb::inst_ptr<T>(self)->callback);
    }
    return 0;
}

template <typename T>
PyType_Slot WITH_CALLBACK[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse<T>)},
                                         {Py_tp_clear, reinterpret_cast<void*>(drop_callback<T>)},
                                         {0, nullptr}};

PyType_Slot CLAIM_SLOTS[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse<NamedClaim>)}, {0, nullptr}};

}  // namespace

void bind_lanes(nb::module_& module) {
    nb::exception<LaneError>(module, "LaneError", PyExc_ValueError);

    nb::class_<LevelTrail>(module, "LevelTrail")
        .def(nb::init<>())
        .def_prop_ro("level_first", [](const LevelTrail& trail) { return level_or_none(trail.level_first); })
        .def_prop_ro("level_last", [](const LevelTrail& trail) { return level_or_none(trail.level_last); })
        .def_ro("promotions", &LevelTrail::promotions)
        .def(
            "moved_to", [](LevelTrail& trail, int level) { trail.moved_to(level_from(level)); }, "level"_a);

    nb::class_<NamedLane>(module, "Lane", nb::is_generic())
        .def(nb::init<std::string, nb::object, bool>(), "name"_a, "ports"_a, nb::kw_only(), "spare"_a = false)
        .def_ro("name", &NamedLane::name)
        .def_ro("ports", &NamedLane::ports)
        .def_ro("spare", &NamedLane::spare)
        .def_prop_ro("claim", [](const NamedLane& lane) { return found(lane.claim); })
        .def_prop_rw(
            "level", [](const NamedLane& lane) { return level_or_none(lane.level); },
            [](NamedLane& lane, int level) { lane.level = level_from(level); });

    nb::class_<NamedClaim, LevelTrail>(module, "Claim", nb::is_generic(), nb::type_slots(CLAIM_SLOTS))
        .def(nb::init<std::string>(), "id"_a)
        .def_ro("id", &NamedClaim::text)
        .def_prop_ro("wanted", [](const NamedClaim& claim) { return level_or_none(claim.wanted); })
        .def_prop_ro("pool",
                     [](const NamedClaim& claim) { return claim.pool_kept.is_valid() ? claim.pool_kept : nb::none(); })
        .def_prop_ro("lane", [](const NamedClaim& claim) {
            return claim.lane == nullptr ? nb::none() : nb::find(static_cast<const NamedLane*>(claim.lane));
        });

    nb::class_<NamedPool>(module, "LanePool", nb::is_generic(), nb::type_slots(WITH_CALLBACK<NamedPool>))
        .def(
            "__init__",
            [](NamedPool* self, nb::iterable lanes, nb::object spare) {
                new (self) NamedPool(spare);
                for (nb::handle lane : lanes) {
                    self->add(nb::cast<NamedLane&>(lane));
                }
            },
            "lanes"_a = nb::tuple(), nb::kw_only(), "spare"_a = nb::none())
        .def_prop_ro("lanes", [](const NamedPool& pool) { return nb::tuple(pool.lanes_kept); })
        .def_prop_ro("waiting", [](const NamedPool& pool) { return found(pool.waiting); })
        .def("add", &NamedPool::add, "lane"_a)
        .def("load", &NamedPool::load, "size_bytes"_a)
        .def("fill", [](NamedPool& pool) {
            std::vector<Claim*> granted;
            pool.fill(granted);
            return found(granted);
        });

    nb::class_<NamedClaims>(module, "Claims", nb::is_generic(), nb::type_slots(WITH_CALLBACK<NamedClaims>))
        .def(nb::init<nb::object>(), "changed"_a)
        .def_prop_ro("submitted", [](const NamedClaims& claims) { return claims.submitted(); })
        .def("submit", &NamedClaims::wait, "claim"_a, "pool"_a)
        .def("submit_on", &NamedClaims::take, "claim"_a, "lane"_a)
        .def("obey", &NamedClaims::obey, "assignments"_a)
        .def("lend", &NamedClaims::lend_from, "time_ns"_a, "pool"_a)
        .def("complete", &NamedClaims::complete, "flow"_a)
        .def("on_a_lane", &NamedClaims::on_a_lane, "flow"_a);

    module.def(
        "loans",
        [](std::vector<int> held, const std::vector<int>& waiting) {
            std::vector<std::pair<std::size_t, std::size_t>> made;
            loans(std::move(held), waiting, [&](std::size_t lane, std::size_t i) { made.emplace_back(lane, i); });
            return made;
        },
        "held"_a, "waiting"_a);
}

}  // namespace mfs
