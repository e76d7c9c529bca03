// The compiled core of the simulator, as the Python module `testbed.simulation._core`.
#include <nanobind/nanobind.h>

#include "testbed/simulation/core/bindings.hpp"
#include "testbed/simulation/core/links.hpp"

NB_MODULE(_core, module) {
    // A command ends without freeing what it has (`experiments.cli.app`), which is no leak.
    nanobind::set_leak_warnings(false);
    module.attr("SOURCES") = SOURCES;
    module.attr("LEVELS") = mfs::LEVELS;
    mfs::bind_links(module);
    mfs::bind_core(module);
}
