// Flows that the policy places together, such as those of a coflow.
#include "testbed/simulation/core/transport.hpp"

namespace mfs {

namespace {

// As the policy names the coflow of the flow, which may have the id of some coflow (`controller.parts.coflows`).
std::string group_name(const Flow& flow) {
    return flow.has_coflow ? "coflow " + flow.coflow_text : "flow " + flow.text;
}

}  // namespace

void Transport::join_group(Flow& flow) {
    auto& group = groups_[group_name(flow)];
    if (group == nullptr) {
        group = std::make_unique<FlowGroup>();
        group->number = world_.links.add_group(0.0);
    }
    flow.group = group.get();
    flow.group_at = group->flows.size();
    group->flows.push_back(&flow);
    ++group->active;
    group->unsent += flow.unsent > 0;
    for (const Part& part : *flow.load) {
        group->whole = group->whole && part.bytes == flow.size;
    }
}

void Transport::leave_group(Flow& flow) {
    FlowGroup& group = *flow.group;
    group.flows[flow.group_at] = nullptr;
    if (--group.active == 0) {
        world_.links.drop_group(group.number);
        groups_.erase(group_name(flow));
    } else if (group.active < group.flows.size() / 2) {
        std::erase(group.flows, nullptr);
        for (std::size_t at = 0; at < group.flows.size(); ++at) {
            group.flows[at]->group_at = at;
        }
    }
    flow.group = nullptr;
}

// A verdict on one flow of a group.
void Transport::note_group(FlowGroup& group, int level, double order, std::int64_t rate) {
    if (group.order != order) {
        group.order = order;
        world_.links.set_order(group.number, order);
    }
    group.alike = group.alike && (group.level == NO_LEVEL || (group.level == level && group.rate == rate));
    group.level = level;
    group.rate = rate;
}

// A verdict on all flows of a group. If only the order changes, the flows themselves stay as they are.
void Transport::take_group(nb::handle said, Heard& heard) {
    FlowGroup& group = *groups_.at(nb::cast<std::string>(get<"group">(said)));
    const int level = nb::cast<int>(get<"level">(said));
    const double order = nb::cast<double>(get<"order">(said));
    const std::int64_t rate = number_or(get<"rate_bps">(said), NO_RATE);
    if (group.order != order) {
        group.order = order;
        world_.links.set_order(group.number, order);
        if (world_.options.lanes) {  // flows that wait for a lane are served by their order
            for (Flow* flow : group.flows) {
                if (flow != nullptr && flow->lane == nullptr) {
                    flow->order = order;
                }
            }
        }
    }
    if (group.alike && group.level == level && group.rate == rate) {
        return;
    }
    const nb::object reason = get<"reason">(said);
    for (Flow* flow : group.flows) {
        if (flow != nullptr && (flow->level != level || flow->rate != rate)) {
            hear(*flow, level, order, rate, text_of(reason), heard);
        }
    }
    group.level = level;
    group.rate = rate;
    group.alike = true;
}

// If all bytes are in streams, and count on all ports of these, the links add them up by bundle.
nb::dict Transport::left_on_ports(nb::handle name) {
    const FlowGroup& group = *groups_.at(nb::cast<std::string>(name));
    const std::size_t links = world_.link_names.size();
    left_on_.assign(static_cast<std::size_t>(world_.links.ports()), 0.0);
    if (group.whole && group.unsent == 0) {
        world_.links.add_left_on_ports(group.number, world_.now(), left_on_.data());
        for (std::size_t port = links; port < left_on_.size(); ++port) {  // a stage can have ports of its own
            left_on_[port % links] += left_on_[port];
        }
    } else {
        for (const Flow* flow : group.flows) {
            if (flow == nullptr || flow->size == 0) {
                continue;
            }
            const std::int64_t left = left_of(*flow);
            for (const Part& part : *flow->load) {
                left_on_[part.port] += static_cast<double>(left_on(part.bytes, left, flow->size));
            }
        }
    }
    nb::dict named;
    for (std::size_t link = 0; link < links; ++link) {
        if (left_on_[link] > 0.0) {
            named[world_.link_names[link]] = static_cast<std::int64_t>(std::llround(left_on_[link]));
        }
    }
    return named;
}

}  // namespace mfs
