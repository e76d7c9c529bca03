// `Links` for Python. `testbed.simulation.links.network` adds the names of ports.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "testbed/simulation/core/bindings.hpp"
#include "testbed/simulation/core/links.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace mfs {

namespace {

using PyPlace = std::pair<int, double>;
using Sent = nb::ndarray<nb::numpy, double, nb::shape<-1, LEVELS>>;

Place as_place(const PyPlace& place, int group) {
    return {place.first, group == NO_GROUP ? place.second : 0.0, group};
}

double as_cap(std::optional<double> cap) { return cap.value_or(std::numeric_limits<double>::infinity()); }

int add(Links& links, const std::vector<int>& ports, double size, const PyPlace& place, std::optional<double> cap,
        const std::optional<std::vector<double>>& weights, int group) {
    if (weights && weights->size() != ports.size()) {
        throw std::invalid_argument("a stream needs as many weights as ports");
    }
    const int count = static_cast<int>(ports.size());
    return links.add(ports.data(), count, size, as_place(place, group), as_cap(cap), weights ? weights->data() : nullptr);
}

int existing_stream(const Links& links, int stream) {
    if (stream < 0 || stream >= links.rows()) throw std::out_of_range("there is no stream " + std::to_string(stream));
    return stream;
}

int existing_port(const Links& links, int port) {
    if (port < 0 || port >= links.ports()) throw std::out_of_range("there is no port " + std::to_string(port));
    return port;
}

std::optional<Ns> next_end_ns(const Links& links) {
    if (links.next_end_ns() == NEVER) return std::nullopt;
    return links.next_end_ns();
}

std::vector<int> take_finished(Links& links, Ns now) {
    std::vector<int> finished;
    links.take_finished(now, finished);
    return finished;
}

std::vector<double> left_bytes(const Links& links, Ns now) {
    std::vector<double> left(links.rows());
    for (int stream = 0; stream < links.rows(); ++stream) left[stream] = links.left_bytes(stream, now);
    return left;
}

Sent sent_bytes(Links& links, Ns now) {
    auto cells = std::make_unique<double[]>(static_cast<std::size_t>(links.ports()) * LEVELS);
    double* const sent = cells.release();
    nb::capsule owner(sent, [](void* memory) noexcept { delete[] static_cast<double*>(memory); });
    links.sent_bytes(now, sent);
    return Sent(sent, {static_cast<std::size_t>(links.ports()), LEVELS}, owner);
}

}  // namespace

void bind_links(nb::module_& module) {
    nb::class_<Links>(module, "Links")
        .def(nb::init<std::vector<double>, double, bool, const std::vector<double>&, std::vector<int>>(), "capacity"_a,
             "guarantee"_a, "bundled"_a = false, "level_weights"_a = std::vector<double>(),
             "ordered_ports"_a = std::vector<int>())
        .def("__len__", &Links::size)
        .def("capacity", [](const Links& links, int port) { return links.capacity(existing_port(links, port)); },
             "port"_a)
        .def("set_capacity",
             [](Links& links, int port, double rate) { links.set_capacity(existing_port(links, port), rate); },
             "port"_a, "rate"_a)
        .def("add", &add, "ports"_a, "size"_a, "place"_a, "cap"_a = nb::none(), "weights"_a = nb::none(),
             "group"_a = NO_GROUP)
        .def("add_group", &Links::add_group, "order"_a)
        .def("set_order", &Links::set_order, "group"_a, "order"_a)
        .def("drop_group", &Links::drop_group, "group"_a)
        .def("move",
             [](Links& links, int stream, const PyPlace& place, std::optional<double> cap, int group) {
                 links.move(existing_stream(links, stream), as_place(place, group), as_cap(cap));
             },
             "stream"_a, "place"_a, "cap"_a = nb::none(), "group"_a = NO_GROUP)
        .def("next_end_ns", &next_end_ns)
        .def("take_finished", &take_finished, "now_ns"_a)
        .def("settle", &Links::settle, "now_ns"_a)
        .def("rate", [](const Links& links, int stream) { return links.rate(existing_stream(links, stream)); },
             "stream"_a)
        .def("left_bytes", &left_bytes, "now_ns"_a)
        .def("sent_bytes", &sent_bytes, "now_ns"_a)
        .def("port_busy_ns", [](Links& links, Ns now, int port) { return links.busy_ns(now, existing_port(links, port)); },
             "now_ns"_a, "port"_a)
        .def_prop_ro("worked_out",
                     [](const Links& links) { return std::pair(links.settlings(), links.worked_out()); })
        .def_prop_ro("fullest", &Links::fullest)
        .def("fullest_now", &Links::fullest_now)
        .def("held_back", &Links::held_back, "tolerance"_a)
        .def_prop_ro("unsettled", &Links::unsettled)
        .def("rows", &Links::rows)
        .def("falsify",
             [](Links& links, int stream, double factor) { links.falsify(existing_stream(links, stream), factor); },
             "stream"_a, "factor"_a);
}

}  // namespace mfs
