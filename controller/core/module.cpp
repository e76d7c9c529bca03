// The compiled core of the controller, as the Python module `controller._core`.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "controller/core/bindings.hpp"
#include "controller/core/named_loads.hpp"
#include "controller/core/urgency.hpp"

namespace nb = nanobind;
using namespace nb::literals;

NB_MODULE(_core, module) {
    // A command ends without freeing what it has (`experiments.cli.app`), which is no leak.
    nb::set_leak_warnings(false);
    module.attr("SOURCES") = SOURCES;
    module.attr("RHO_CAP") = mfs::RHO_CAP;
    module.attr("BLOCKS_NOW") = mfs::BLOCKS_NOW;
    module.def("mlu", &mfs::mlu, "due_bytes"_a, "time_left_ns"_a, "bps"_a, "rho"_a = 0.0);

    mfs::bind_lanes(module);

    // Bound under its own type, so that the cores of other modules can ask for it.
    nb::class_<mfs::PortLoads>(module, "NumberedPortLoads");

    using Named = mfs::NamedPortLoads;
    nb::class_<Named, mfs::PortLoads>(module, "NamedPortLoads")
        .def(nb::init<nb::dict, std::int64_t>(), "bps"_a, "rho_window_ns"_a)
        .def("__contains__", &Named::contains, "port"_a)
        .def("takes", &Named::takes, "load"_a)
        .def("bps", &Named::bps_of, "port"_a)
        .def("due", &Named::due_on, "port"_a, "deadline_ns"_a)
        .def("due_bytes", &Named::due_bytes_on, "port"_a, "deadline_ns"_a)
        .def("rho", &Named::rho_of, "port"_a, "now_ns"_a)
        .def("early_layers", &Named::early_layers, "port"_a)
        .def("first_early", &Named::first_early, "load"_a, "batches"_a, "layers_ahead"_a)
        .def("highest_mlu", &Named::highest_mlu, "now_ns"_a, "flow"_a, "rho"_a.none(), "own_bytes"_a.none())
        .def("submitted", &Named::submitted, "flow"_a)
        .def("moved", &Named::moved, "now_ns"_a, "flow"_a, nb::kw_only(), "before_bytes"_a, "after_bytes"_a)
        .def("finished", &Named::finished, "now_ns"_a, "flow"_a, nb::kw_only(), "before_bytes"_a)
        .def("put_aside", &Named::put_aside, "flow"_a, "bytes_left"_a)
        .def("take_back", &Named::take_back, "flow"_a, "bytes_left"_a);
}
