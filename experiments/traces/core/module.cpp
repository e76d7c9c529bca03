// The compiled loops over traces, as the Python module `experiments.traces._core`.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>

#include <tuple>
#include <utility>

#include "experiments/traces/core/reuse.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Column = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::numpy, std::int64_t, nb::ndim<1>>;

mfs::Longs view(const Column& column) { return {column.data(), column.size()}; }

// An array over the memory of `values`.
template <typename Array, typename Value>
Array as_array(std::vector<Value> values) {
    auto* const kept = new std::vector<Value>(std::move(values));
    nb::capsule owner(kept, [](void* vector) noexcept { delete static_cast<std::vector<Value>*>(vector); });
    return Array(kept->data(), {kept->size()}, owner);
}

void number(Writable ids) { mfs::number({ids.data(), ids.size()}); }

std::tuple<Result, Result, Result> distances(const Column& blocks, const Column& starts, std::int64_t distinct) {
    mfs::Distances found = mfs::distances(view(blocks), view(starts), distinct);
    return {as_array<Result>(std::move(found.distance)), as_array<Result>(std::move(found.since)),
            as_array<Result>(std::move(found.reused))};
}

Result ends(const Column& before, const Column& deepest_first) {
    return as_array<Result>(mfs::ends(view(before), view(deepest_first)));
}

}  // namespace

NB_MODULE(_core, module) {
    // A command ends without freeing what it has (`experiments.cli.app`), which is no leak.
    nb::set_leak_warnings(false);
    module.attr("SOURCES") = SOURCES;
    module.attr("NO_END") = mfs::NO_END;
    module.attr("SEVERAL_ENDS") = mfs::SEVERAL_ENDS;
    module.def("number", &number, "ids"_a.noconvert());
    module.def("distances", &distances, "blocks"_a, "starts"_a, "distinct"_a);
    module.def("ends", &ends, "before"_a, "deepest_first"_a);
}
