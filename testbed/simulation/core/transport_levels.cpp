// What the transport asks of the scheduler, and what it does with the answers.
#include "testbed/simulation/core/transport.hpp"

namespace mfs {

namespace {

int layer_held_up(const Flow& flow) {
    return flow.stage == S1 && flow.layer != NO_NAME ? flow.layer : BLOCKS_NOW;
}

}  // namespace

// --- events ------------------------------------------------------------------------------------------

void Transport::report_progress() {
    // The scheduler hears of single flows, unless the policy places whole groups.
    const bool hears = !world_.options.counts_bytes && !world_.options.groups && python_flows_ > 0;
    if (world_.loads == nullptr && !hears) {
        return;  // nobody would read it
    }
    const Ns now = world_.now();
    moving_.clear();
    for (Flow* flow : owner_) {
        if (flow != nullptr && (counts_bytes(*flow) || (hears && flow->standing == nullptr))) {
            moving_.push_back(flow);
        }
    }
    std::sort(moving_.begin(), moving_.end(), [](const Flow* a, const Flow* b) { return a->number < b->number; });
    moving_.erase(std::unique(moving_.begin(), moving_.end()), moving_.end());
    for (Flow* flow : moving_) {
        const std::int64_t left = left_of(*flow);
        if (left >= flow->told) {
            continue;
        }
        const std::int64_t before = flow->told;
        flow->told = left;
        if (counts_bytes(*flow)) {
            moved_bytes(*flow, before);
        } else {
            tick_known_ = false;
            obey_python(world_.host.progress(now, flow->id, left));
        }
    }
}

std::int64_t Transport::left_of(const Flow& flow) const {
    double streaming = 0.0;
    for (const Sent& sent : flow.streams) {
        streaming += world_.links.left_bytes(sent.stream, world_.now());
    }
    // Round up: with a pace worked out from a byte too few, the flow would end after its deadline.
    return flow.unsent + static_cast<std::int64_t>(std::ceil(streaming * flow.in_step));
}

void Transport::batch_started(nb::handle batch) {
    tick_known_ = false;
    obey_python(world_.host.batch_started(world_.now(), batch));
}

void Transport::layer_advanced(nb::handle batch, int layer) {
    tick_known_ = false;
    obey_python(world_.host.layer_advanced(world_.now(), batch, layer));
}

void Transport::tick() {
    tick_known_ = false;
    obey_python(world_.host.tick(world_.now()));
}

// When the scheduler wants to be asked again without an event. It can change only when the scheduler is called.
Ns Transport::next_tick_ns() {
    if (!tick_known_) {
        tick_known_ = true;
        tick_ns_ = number_or(nb::object(world_.host.next_tick_ns()), NEVER);
    }
    return tick_ns_;
}

// --- levels -----------------------------------------------------------------------------------------

const Standing* Transport::standing(BatchInfo& batch, int stage) {
    Standing& standing = batch.standing[stage];
    if (!standing.asked) {
        standing.asked = true;
        const nb::object said = world_.host.standing(stage, batch.id.is_valid() ? batch.id : nb::object(nb::none()));
        if (!said.is_none()) {
            standing.given = true;
            standing.level = nb::cast<int>(said[0]);
            standing.order = nb::cast<double>(said[1]);
            standing.rate = number_or(said[2], NO_RATE);
            standing.reason = nb::cast<std::string>(said[3]);
        }
    }
    return standing.given ? &standing : nullptr;
}

void Transport::submit(Flow& flow, nb::handle transfer, nb::handle load, Heard& heard) {
    if (active_.contains(flow.id)) {
        throw nb::value_error(("flow '" + flow.text + "' is submitted twice").c_str());
    }
    active_[flow.id] = reinterpret_cast<std::uintptr_t>(&flow);
    ++python_flows_;
    tick_known_ = false;
    if (counts_bytes(flow)) {
        submitted_bytes(flow);
    }
    take_verdict(flow, world_.host.submit(world_.now(), transfer, load), heard);
}

// Takes an assignment or a first verdict, which have the same attributes.
void Transport::take_verdict(Flow& flow, nb::handle said, Heard& heard) {
    const nb::object reason = get<"reason">(said);
    const bool exact = world_.options.exact;
    const double order = exact ? nb::cast<double>(get<"order">(said)) : 0.0;
    const std::int64_t rate = exact ? number_or(get<"rate_bps">(said), NO_RATE) : NO_RATE;
    hear(flow, nb::cast<int>(get<"level">(said)), order, rate, text_of(reason), heard);
}

// Whether the core counts the bytes of a flow in the loads of ports. If not, the scheduler does, if anyone does.
bool Transport::counts_bytes(const Flow& flow) const {
    return world_.loads != nullptr && flow.stage != BACKGROUND &&
           (flow.standing != nullptr || world_.options.counts_bytes);
}

void Transport::take_standing(Flow& flow, Heard& heard) {
    if (counts_bytes(flow)) {
        submitted_bytes(flow);
    }
    const Standing& said = *flow.standing;
    hear(flow, said.level, said.order, said.rate, said.reason, heard);
}

void Transport::hear(Flow& flow, int level, double order, std::int64_t rate, std::string_view reason, Heard& heard) {
    if (flow.group != nullptr) {
        note_group(*flow.group, level, order, rate);
    }
    claims_.hear(world_.now(), flow, level, order, rate, reason, heard);
}

void Transport::take_python(nb::handle assignments, Heard& heard) {
    for (nb::handle said : assignments) {
        if (world_.options.groups && nb::hasattr(said, "group")) {
            take_group(said, heard);
            continue;
        }
        auto& flow = *reinterpret_cast<Flow*>(nb::cast<std::uintptr_t>(active_[get<"flow">(said)]));
        take_verdict(flow, said, heard);
    }
}

void Transport::obey_python(nb::handle assignments) {
    if (nb::len(assignments) == 0) {
        return;
    }
    Heard heard;
    take_python(assignments, heard);
    claims_.lend_all(world_.now(), heard);
    move_all(heard.moved);
}

void Transport::note(const Claim& claim, int before, std::string_view reason) {
    if (!world_.options.decisions) {
        return;
    }
    DecisionRows& rows = world_.decisions;
    rows.time_ns.push_back(world_.now());
    rows.flow.add(claim.text);
    rows.level_from.push_back(static_cast<std::int8_t>(before));
    rows.level_to.push_back(static_cast<std::int8_t>(claim.wanted));
    rows.reason.add(reason);
    if (rows.size() >= BLOCK_ROWS) {
        world_.give_decisions();
    }
}

void Transport::move_all(const std::vector<Claim*>& claims) {
    for (Claim* claim : claims) {
        move(*static_cast<Flow*>(claim));
    }
}

void Transport::move(Flow& flow) {
    const bool bounded = flow.bounded();
    for (const Sent& sent : flow.streams) {
        world_.links.move(sent.stream, flow.place(), bounded ? flow.bound(sent.message.peer) : UNBOUNDED);
    }
}

// --- lanes ------------------------------------------------------------------------------------------

void Transport::set_load(LanePool& lanes, std::int64_t size) {
    if (lanes.load_size == size) {
        return;
    }
    lanes.load_size = size;
    lanes.load = lanes.expected.of(size);
    lanes.as_dict = world_.as_dict(lanes.load);
}

Transport::LanePool::LanePool(const std::vector<int>& routes, bool bounded) : lanes(routes.size()) {
    for (std::size_t i = 0; i < routes.size(); ++i) {
        lanes[i].route = routes[i];
        pool.add(lanes[i]);
    }
    if (!bounded) {
        pool.spare = [this](Claim& claim, std::size_t like) {
            auto& made = static_cast<Flow&>(claim).spare;
            made = std::make_unique<PairLane>();
            made->route = lanes[like].route;
            return made.get();
        };
    }
}

Transport::LanePool& Transport::lane_pool(int stage, int src, int dst) {
    auto& known = pools_[lane_key(stage, src, dst)];
    if (known == nullptr) {
        const auto routes = nb::cast<std::vector<int>>(world_.host.lane_routes(stage, src, dst));
        known = std::make_unique<LanePool>(routes, world_.options.lanes);
        for (const int route : routes) {
            known->expected.add(world_.routes[route].path);
        }
    }
    return *known;
}

void Transport::carry_out(const std::vector<Claim*>& moved, Pool* pool) {
    std::vector<Claim*> granted, lent;
    if (pool != nullptr) {
        pool->fill(granted);
        claims_.lend(world_.now(), *pool, lent);
    }
    move_all(moved);
    for (Claim* claim : granted) {
        Flow& flow = *static_cast<Flow*>(claim);
        if (flow.route < 0) {
            flow.route = static_cast<PairLane*>(flow.lane)->route;
        }
        flow.path = world_.routes[flow.route].name;
        permitted(flow);
        flow.after = world_.options.transfer_ns;
        send(flow, {{flow.dst, flow.size}}, nullptr);
    }
    move_all(lent);
}

// The flow has its lane, and may start as soon as its level is in force there.
void Transport::permitted(Flow& flow) {
    const bool kept = flow.lane->level == flow.wanted;
    flow.lane_ns = world_.now();
    flow.permit = flow.lane_ns + (kept ? world_.options.permit_kept_ns : world_.options.permit_ns);
}

// --- loads of ports ---------------------------------------------------------------------------------

void Transport::submitted_bytes(Flow& flow) {
    PortLoads& loads = *world_.loads;
    if (flow.stage == S3) {
        loads.due_changes(flow.deadline != NONE, flow.deadline, flow.size, flow.size, *flow.load, 1);
        return;
    }
    flow.batch_number = flow.batch->name == NO_NAME ? NO_BATCH : loads.intern(flow.batch->text);
    loads.early_submitted(flow.batch_number, layer_held_up(flow), flow.size, *flow.load);
}

void Transport::moved_bytes(Flow& flow, std::int64_t before) {
    PortLoads& loads = *world_.loads;
    if (flow.stage != S3) {
        loads.early_moved(world_.now(), flow.size, before, flow.told, *flow.load);
    } else if (flow.deadline != NONE) {
        loads.due_moved(flow.deadline, flow.size, before, flow.told, *flow.load);
    }
}

void Transport::finished_bytes(Flow& flow) {
    PortLoads& loads = *world_.loads;
    if (flow.stage == S3) {
        loads.due_changes(flow.deadline != NONE, flow.deadline, flow.size, flow.told, *flow.load, -1);
    } else {
        loads.early_finished(world_.now(), flow.batch_number, layer_held_up(flow), flow.size, flow.told, *flow.load);
    }
}

}  // namespace mfs
