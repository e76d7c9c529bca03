#include "controller/core/named_loads.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "controller/core/urgency.hpp"

namespace mfs {

namespace {

// What a `Flow` consists of. It lives as long as the process.
struct Names {
    nb::object id = nb::steal(PyUnicode_InternFromString("id"));
    nb::object stage = nb::steal(PyUnicode_InternFromString("stage"));
    nb::object size_bytes = nb::steal(PyUnicode_InternFromString("size_bytes"));
    nb::object batch = nb::steal(PyUnicode_InternFromString("batch"));
    nb::object layer = nb::steal(PyUnicode_InternFromString("layer"));
    nb::object deadline_ns = nb::steal(PyUnicode_InternFromString("deadline_ns"));
    nb::object load = nb::steal(PyUnicode_InternFromString("load"));
    nb::object s1, s3;

    Names() {
        const nb::object stages = nb::module_::import_("controller.flow").attr("Stage");
        s1 = stages.attr("KV_REUSE");
        s3 = stages.attr("P2D");
    }
};

const Names& names() {
    static const Names* const all = new Names;
    return *all;
}

nb::object get(nb::handle of, const nb::object& name) {
    PyObject* const found = PyObject_GetAttr(of.ptr(), name.ptr());
    if (found == nullptr) throw nb::python_error();
    return nb::steal(found);
}

std::int64_t number_from(nb::handle integer) {
    const long long number = PyLong_AsLongLong(integer.ptr());
    if (number == -1 && PyErr_Occurred()) throw nb::python_error();
    return number;
}

std::int64_t get_number(nb::handle of, const nb::object& name) { return number_from(get(of, name)); }

bool is_s3(nb::handle flow) { return get(flow, names().stage).is(names().s3); }

// The layer that waits for an S1 or S2 flow.
int holds_up(nb::handle flow) {
    const nb::object layer = get(flow, names().layer);
    if (layer.is_none() || !get(flow, names().stage).is(names().s1)) return BLOCKS_NOW;
    return static_cast<int>(number_from(layer));
}

nb::object as_dict(nb::handle mapping) {
    if (PyDict_Check(mapping.ptr())) return nb::borrow(mapping);
    nb::dict copy;
    copy.update(mapping);
    return copy;
}

}  // namespace

NamedPortLoads::NamedPortLoads(nb::dict bps, std::int64_t rho_window_ns)
    : PortLoads(nb::cast<std::vector<std::int64_t>>(bps.values()), rho_window_ns), names_(bps.keys()) {
    for (std::size_t number = 0; number < names_.size(); ++number) numbers_[names_[number]] = number;
}

bool NamedPortLoads::takes(nb::handle load) const {
    const nb::object parts = as_dict(load);
    PyObject *port, *bytes;
    for (Py_ssize_t at = 0; PyDict_Next(parts.ptr(), &at, &port, &bytes);) {
        if (!contains(port) || number_from(bytes) < 0) return false;
    }
    return true;
}

std::pair<std::int64_t, std::int64_t> NamedPortLoads::due_on(nb::handle port, Ns deadline) const {
    const Due all = due(number(port), deadline);
    return {all.bytes, all.flows};
}

nb::dict NamedPortLoads::early_layers(nb::handle port) const {
    nb::dict batches, layers;
    int batch = NO_BATCH;
    for (const Early& one : early(number(port))) {
        if (one.batch != batch) {
            batch = one.batch;
            layers = nb::dict();
            batches[batch_id(batch).c_str()] = layers;
        }
        layers[nb::int_(one.layer)] = one.flows;
    }
    return batches;
}

nb::object NamedPortLoads::first_early(nb::handle load, nb::dict batches, int layers_ahead) {
    const auto layer_of = [&](int batch) -> std::optional<int> {
        PyObject* const found = PyDict_GetItemWithError(batches.ptr(), nb::cast(batch_id(batch)).ptr());
        if (found != nullptr) return static_cast<int>(get_number(found, names().layer));
        if (PyErr_Occurred()) throw nb::python_error();
        return std::nullopt;
    };
    const int first = PortLoads::first_early(parsed(load), layers_ahead, layer_of);
    return first == NO_BATCH ? nb::none() : nb::cast(batch_id(first));
}

nb::tuple NamedPortLoads::highest_mlu(Ns now, nb::handle flow, std::optional<double> rho,
                                      std::optional<std::int64_t> own_bytes) {
    const Ns deadline = get_number(flow, names().deadline_ns);
    const std::int64_t size = get_number(flow, names().size_bytes);
    struct {
        double mlu;
        int port;
        Due due;
        double rho;
    } worst{-1.0, 0, {0, 0}, 0.0};
    for (const Part& part : load_of(flow)) {
        Due due{0, 1};
        if (!own_bytes) {
            due = PortLoads::due(part.port, deadline);
        } else if (size) {
            due.bytes = left_on(part.bytes, *own_bytes, size);
        }
        const double share = rho ? *rho : PortLoads::rho(part.port, now);
        const double value = mlu(due.bytes, deadline - now, bps(part.port), share);
        if (value > worst.mlu) worst = {value, part.port, due, share};
    }
    return nb::make_tuple(worst.mlu, names_[worst.port], worst.due.bytes, worst.due.flows, worst.rho);
}

void NamedPortLoads::submitted(nb::handle flow) {
    const std::int64_t size = get_number(flow, names().size_bytes);
    if (is_s3(flow)) {
        due_changes_by(flow, size, +1);
    } else {
        const Load& load = load_of(flow);
        early_submitted(batch_of(flow), holds_up(flow), size, load);
    }
}

void NamedPortLoads::moved(Ns now, nb::handle flow, std::int64_t before, std::int64_t after) {
    const std::int64_t size = get_number(flow, names().size_bytes);
    if (!is_s3(flow)) {
        early_moved(now, size, before, after, load_of(flow));
        return;
    }
    const nb::object deadline = get(flow, names().deadline_ns);
    if (!deadline.is_none() && !is_aside(flow)) {
        due_moved(number_from(deadline), size, before, after, load_of(flow));
    }
}

void NamedPortLoads::finished(Ns now, nb::handle flow, std::int64_t before) {
    if (is_s3(flow)) {
        due_changes_by(flow, before, -1);
        if (aside_.size() > 0) aside_.discard(get(flow, names().id));
    } else {
        const Load& load = load_of(flow);
        const std::int64_t size = get_number(flow, names().size_bytes);
        early_finished(now, batch_of(flow), holds_up(flow), size, before, load);
    }
}

void NamedPortLoads::put_aside(nb::handle flow, std::int64_t bytes_left) {
    if (is_s3(flow) && !is_aside(flow)) {
        due_changes_by(flow, bytes_left, -1);
        aside_.add(get(flow, names().id));
    }
}

void NamedPortLoads::take_back(nb::handle flow, std::int64_t bytes_left) {
    if (is_aside(flow)) {
        aside_.discard(get(flow, names().id));
        due_changes_by(flow, bytes_left, +1);
    }
}

int NamedPortLoads::number(nb::handle port) const {
    PyObject* const found = PyDict_GetItemWithError(numbers_.ptr(), port.ptr());
    if (found == nullptr) {
        if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, port.ptr());
        throw nb::python_error();
    }
    return static_cast<int>(PyLong_AsLong(found));
}

int NamedPortLoads::batch_of(nb::handle flow) {
    const nb::object batch = get(flow, names().batch);
    return batch.is_none() ? NO_BATCH : intern(nb::cast<std::string>(batch));
}

const Load& NamedPortLoads::load_of(nb::handle flow) { return parsed(get(flow, names().load)); }

const Load& NamedPortLoads::parsed(nb::handle load) {
    const nb::object parts = as_dict(load);
    load_.clear();
    PyObject *port, *bytes;
    for (Py_ssize_t at = 0; PyDict_Next(parts.ptr(), &at, &port, &bytes);) {
        load_.push_back(Part{number(port), number_from(bytes)});
    }
    return load_;
}

bool NamedPortLoads::is_aside(nb::handle flow) const {
    return aside_.size() > 0 && aside_.contains(get(flow, names().id));
}

void NamedPortLoads::due_changes_by(nb::handle flow, std::int64_t bytes_left, int sign) {
    const nb::object deadline = get(flow, names().deadline_ns);
    if (deadline.is_none() || is_aside(flow)) return;
    const std::int64_t size = get_number(flow, names().size_bytes);
    due_changes(true, number_from(deadline), size, bytes_left, load_of(flow), sign);
}

}  // namespace mfs
