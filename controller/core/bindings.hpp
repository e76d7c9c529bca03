// What `module.cpp` calls: each adds one part of the core to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace mfs {

void bind_lanes(nanobind::module_& module);

}  // namespace mfs
