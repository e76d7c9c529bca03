// The loads of ports as Python sees them: flows are `controller.flow.Flow`, ports and batches have names.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "controller/core/port_loads.hpp"

namespace mfs {

namespace nb = nanobind;

// A `PortLoads` for callers in Python. The stub `controller/_core.pyi` says what its methods do.
//
// Callers in C++ that use numbers take it as the `PortLoads` that it is.
class NamedPortLoads : public PortLoads {
  public:
    NamedPortLoads(nb::dict bps, std::int64_t rho_window_ns);

    bool contains(nb::handle port) const { return numbers_.contains(port); }
    bool takes(nb::handle load) const;
    std::int64_t bps_of(nb::handle port) const { return bps(number(port)); }
    std::pair<std::int64_t, std::int64_t> due_on(nb::handle port, Ns deadline) const;
    std::int64_t due_bytes_on(nb::handle port, Ns until) const { return due_bytes(number(port), until); }
    double rho_of(nb::handle port, Ns now) { return rho(number(port), now); }
    nb::dict early_layers(nb::handle port) const;
    nb::object first_early(nb::handle load, nb::dict batches, int layers_ahead);
    nb::tuple highest_mlu(Ns now, nb::handle flow, std::optional<double> rho,
                          std::optional<std::int64_t> own_bytes);

    void submitted(nb::handle flow);
    void moved(Ns now, nb::handle flow, std::int64_t before, std::int64_t after);
    void finished(Ns now, nb::handle flow, std::int64_t before);
    void put_aside(nb::handle flow, std::int64_t bytes_left);
    void take_back(nb::handle flow, std::int64_t bytes_left);

  private:
    int number(nb::handle port) const;
    int batch_of(nb::handle flow);
    const Load& parsed(nb::handle load);
    const Load& load_of(nb::handle flow);
    bool is_aside(nb::handle flow) const;
    void due_changes_by(nb::handle flow, std::int64_t bytes_left, int sign);

    nb::dict numbers_;
    nb::list names_;
    nb::set aside_;  // ids of flows
    Load load_;      // of the flow at hand
};

}  // namespace mfs
