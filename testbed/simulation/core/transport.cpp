#include "testbed/simulation/core/transport.hpp"

namespace mfs {

namespace {

struct Letter {  // a message that takes time besides its time on the links
    Flow* flow;
    Message message;
};

struct LateLetters {  // messages of a flow that has no permit yet
    Flow* flow;
    Letters letters;
    Exchanging* exchange;
};

std::uint64_t key(int stage, int src, int dst) {
    return (static_cast<std::uint64_t>(stage) << 60) | (static_cast<std::uint64_t>(src) << 30) |
           static_cast<std::uint64_t>(dst);
}

std::int64_t number_or(nb::handle value, std::int64_t none) {
    return value.is_none() ? none : nb::cast<std::int64_t>(value);
}

std::string_view text_of(nb::handle text) {
    Py_ssize_t size = 0;
    const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (bytes == nullptr) {
        throw nb::python_error();
    }
    return {bytes, static_cast<std::size_t>(size)};
}

// The coflow that a transfer names, or else the one of its batch, layer and stage (`Transfer.belongs_to`).
void name_coflow(Flow& flow, nb::handle named) {
    flow.has_coflow = true;
    if (!named.is_none()) {
        flow.coflow_text = text_of(named);
    } else if (flow.batch->name != NO_NAME && flow.layer != NO_NAME) {
        flow.coflow_text = flow.batch->text + ".l" + std::to_string(flow.layer) + "." + STAGE_NAMES[flow.stage];
    } else {
        flow.has_coflow = false;
    }
}

// As the policy names the coflow of the flow, which may have the id of some coflow (`controller.parts.coflows`).
std::string group_name(const Flow& flow) {
    return flow.has_coflow ? "coflow " + flow.coflow_text : "flow " + flow.text;
}

int layer_held_up(const Flow& flow) {
    return flow.stage == S1 && flow.layer != NO_NAME ? flow.layer : BLOCKS_NOW;
}

}  // namespace

Transport::Transport(World& world)
    : world_(world),
      bursts_(world.links, world.network_ports, world.options.burst_bytes),
      grouped_(static_cast<std::size_t>(world.network_ports), 0.0) {}

// --- from the ranks ---------------------------------------------------------------------------------

void Transport::post(nb::handle transfer, Awaits* awaits, void* for_what) {
    auto* flow = new Flow();
    flow->transfer = nb::borrow(transfer);
    flow->id = transfer.attr("id");
    flow->text = text_of(flow->id);
    flow->stage = world_.stage(transfer.attr("stage"));
    flow->src = nb::cast<int>(transfer.attr("src"));
    flow->dst = nb::cast<int>(transfer.attr("dst"));
    flow->size = nb::cast<std::int64_t>(transfer.attr("size_bytes"));
    flow->batch = world_.batch(transfer.attr("batch"));
    flow->layer = static_cast<int>(number_or(transfer.attr("layer"), NO_NAME));
    flow->request = number_or(transfer.attr("request"), NONE);
    flow->deadline = number_or(transfer.attr("deadline_ns"), NONE);
    name_coflow(*flow, transfer.attr("coflow"));
    flow->owed = flow->unsent = flow->told = flow->size;
    flow->submit = flow->lane_ns = world_.now();
    flow->awaits = awaits;
    flow->for_what = for_what;
    LanePool& lanes = lane_pool(flow->stage, flow->src, flow->dst);
    flow->pool = &lanes.pool;
    flow->standing = standing(*flow->batch, flow->stage);
    nb::object load;
    if (world_.options.by_flow) {
        flow->route =
            nb::cast<int>(world_.host.flow_route(flow->id, flow->stage, flow->src, flow->dst, flow->size));
        add_load(flow->own_load, world_.routes[flow->route].path, flow->size);
        load = world_.as_dict(flow->own_load);
    } else if (flow->standing == nullptr || world_.loads != nullptr) {
        set_load(lanes, flow->size);
        flow->own_load = lanes.load;
        load = lanes.as_dict;
    }
    flow->load = &flow->own_load;
    flow->number = submitted++;
    lanes.pool.waiting.push_back(flow);
    if (world_.options.groups) {
        join_group(*flow);
    }
    Flows moved;
    Pools crowded;
    if (flow->standing != nullptr) {
        take_standing(*flow, moved, crowded);
    } else {
        take_python(submit(*flow, flow->transfer, load), moved, crowded);
    }
    lend_all(crowded, moved);
    carry_out(moved, &lanes.pool);
}

Flow* Transport::open(Opened opened, Awaits* awaits, void* for_what) {
    const Share& share = *opened.share;
    auto* flow = new Flow();
    flow->stage = S2;
    flow->src = opened.src;
    flow->dst = ALL_PEERS;
    flow->size = share.size;
    flow->batch = opened.batch;
    flow->layer = opened.layer;
    flow->text = std::move(opened.id);
    flow->coflow_text = *opened.step_id;
    flow->has_coflow = true;
    flow->owed = flow->unsent = flow->told = share.size;
    flow->submit = flow->lane_ns = world_.now();
    flow->share = &share;
    flow->load = &share.load;
    flow->path = share.path;
    flow->awaits = awaits;
    flow->for_what = for_what;
    flow->index = opened.index;
    auto& side = sides_[key(S2, opened.group, opened.index)];
    if (side == nullptr) {
        side = std::make_unique<Lane>();
    }
    if (side->claim != nullptr) {
        throw std::logic_error(flow->text + " starts before another share of its member has ended");
    }
    flow->number = submitted++;
    side->claim = flow;
    flow->lane = side.get();
    flow->standing = standing(*flow->batch, S2);
    Flows moved;
    Pools crowded;
    if (flow->standing != nullptr) {
        take_standing(*flow, moved, crowded);
    } else {
        nb::object transfer = world_.host.transfer_of(opened.step, opened.index, opened.src, share.size,
                                                      opened.batch->id, opened.layer, opened.whole);
        flow->id = transfer.attr("id");
        flow->transfer = transfer;
        if (!share.as_dict.is_valid()) {
            share.as_dict = world_.as_dict(share.load);
        }
        take_python(submit(*flow, transfer, share.as_dict), moved, crowded);
    }
    lend_all(crowded, moved);
    for (Flow* each : moved) {
        move(*each);
    }
    permitted(*flow);
    return flow;
}

void Transport::share_opened(Flow& flow, Ns then) {
    flow.after = world_.options.collective_ns;
    flow.then = then;
    if (flow.owed == 0) {
        ++flow.acts;
        world_.at(flow.permit + flow.after, Does::COMPLETE, &flow);
    }
}

void Transport::group_opened(Flow& flow, Ns after) {
    flow.unsent = 0;
    flow.after = after;
    if (flow.share->largest == 0) {  // it stays on the server
        ++flow.acts;
        world_.at(flow.permit + flow.after, Does::COMPLETE, &flow);
    } else if (flow.permit > world_.now()) {
        ++flow.acts;
        world_.at(flow.permit, Does::BEGIN_GROUP, &flow);
    } else {
        begin_group(flow);
    }
}

void Transport::begin_group(Flow& flow) {
    const Share& share = *flow.share;
    std::vector<int> ports;
    std::vector<double> weights;
    for (const Part& part : share.carried) {
        if (part.bytes > 0) {
            grouped_[part.port] += static_cast<double>(part.bytes);
            ports.push_back(part.port);
            weights.push_back(static_cast<double>(part.bytes) / static_cast<double>(share.largest));
        }
    }
    const double size = static_cast<double>(share.largest) * world_.faults.size_factor;
    const int stream = world_.links.add(ports.data(), static_cast<int>(ports.size()), size, flow.place(),
                                        flow.bound(ALL_PEERS), weights.data());
    ++world_.messages;
    flow.streams.push_back({stream, {ALL_PEERS, share.size, nullptr, flow.after}});
    flow.in_step = static_cast<double>(share.size) / static_cast<double>(share.largest);
    own(stream, flow);
}

void Transport::send(Flow& flow, const Letters& letters, Exchanging* exchange) {
    const Ns now = world_.now();
    if (flow.permit > now) {
        ++flow.acts;
        world_.at(flow.permit, Does::SEND, new LateLetters{&flow, letters, exchange});
        return;
    }
    const bool bounded = flow.bounded();
    const Ns after = flow.after;
    flow.after = flow.then;
    const bool first = flow.unsent == flow.size;
    const bool has_beside = flow.share != nullptr && !flow.share->beside.empty();
    for (const auto& [peer, size] : letters) {
        Route& route = world_.routes[flow.route_to(peer)];
        const Message message{peer, size, exchange, after};
        flow.unsent -= size;
        if (flow.group != nullptr && size > 0 && flow.unsent == 0) {
            --flow.group->unsent;
        }
        if (size > 0 && route.crosses()) {
            ++world_.messages;
            double over = static_cast<double>(size);
            if (bursts_.on()) {
                int sharing = 0;
                if (first || has_beside) {
                    sharing = has_beside ? std::max(flow.share->beside[peer].first, flow.share->beside[peer].second) : 1;
                }
                over -= passed(route, size, sharing);
            }
            route.carried += over;
            const double cap = bounded ? flow.bound(peer) : UNBOUNDED;
            const int stream =
                world_.links.add(route.ports.data(), static_cast<int>(route.ports.size()),
                                 over * world_.faults.size_factor, flow.place(), cap, nullptr);
            flow.streams.push_back({stream, message});
            own(stream, flow);
        } else {  // nothing to send, or it stays on the server
            world_.messages += size > 0;
            ++flow.acts;
            world_.at(now + after, Does::ARRIVE, new Letter{&flow, message});
        }
    }
    if (flow.rate != NO_RATE) {
        move(flow);  // more streams share its pace now
    }
}

// --- from the network and the scheduler -------------------------------------------------------------

void Transport::finished(const std::vector<int>& streams) {
    std::vector<std::pair<Flow*, Message>> ended;
    for (const int stream : streams) {  // all of them first, because their numbers are used again
        Flow* flow = owner_[stream];
        owner_[stream] = nullptr;
        auto sent = std::find_if(flow->streams.begin(), flow->streams.end(),
                                 [&](const Sent& each) { return each.stream == stream; });
        ended.emplace_back(flow, sent->message);
        flow->streams.erase(sent);
        ++flow->acts;
    }
    if (bursts_.on()) {
        for (const auto& [flow, message] : ended) {
            if (message.peer != ALL_PEERS) {
                bursts_.ends(world_.now(), world_.routes[flow->route_to(message.peer)].ports);
            }
        }
    }
    for (const auto& [flow, message] : ended) {
        if (message.after > 0) {
            world_.at(world_.now() + message.after, Does::ARRIVE, new Letter{flow, message});
        } else {
            through(*flow, message);
            --flow->acts;
            let_go(*flow);
        }
    }
}

void Transport::report_progress() {
    if (world_.loads == nullptr && (python_flows_ == 0 || world_.options.groups)) {
        return;  // nobody would read it
    }
    const Ns now = world_.now();
    moving_.clear();
    for (Flow* flow : owner_) {
        if (flow != nullptr && (flow->standing == nullptr || world_.loads != nullptr)) {
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
        if (flow->standing != nullptr) {
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

nb::object Transport::submit(Flow& flow, nb::handle transfer, nb::handle load) {
    if (active_.contains(flow.id)) {
        throw nb::value_error(("flow '" + flow.text + "' is submitted twice").c_str());
    }
    active_[flow.id] = reinterpret_cast<std::uintptr_t>(&flow);
    ++python_flows_;
    tick_known_ = false;
    return world_.host.submit(world_.now(), transfer, load);
}

void Transport::told(Flow& flow, int level, double order, std::int64_t rate, std::string_view reason,
                     Flows& moved, Pools& crowded) {
    const int before = flow.level_last;
    flow.obey(level, order, rate);
    if (FlowGroup* group = flow.group) {
        if (group->order != order) {
            group->order = order;
            world_.links.set_order(group->number, order);
        }
        group->alike = group->alike && (group->level == NO_LEVEL || (group->level == level && group->rate == rate));
        group->level = level;
        group->rate = rate;
    }
    if (flow.wanted != before) {
        note(flow, before, reason);
    }
    if (flow.lane != nullptr) {
        moved.push_back(&flow);
    } else if (flow.pool != nullptr &&
               std::find(crowded.begin(), crowded.end(), flow.pool) == crowded.end()) {
        crowded.push_back(flow.pool);
    }
}

void Transport::take_standing(Flow& flow, Flows& moved, Pools& crowded) {
    if (world_.loads != nullptr) {
        submitted_bytes(flow);
    }
    const Standing& said = *flow.standing;
    told(flow, said.level, said.order, said.rate, said.reason, moved, crowded);
}

void Transport::take_python(nb::handle assignments, Flows& moved, Pools& crowded) {
    for (nb::handle said : assignments) {
        if (world_.options.groups && nb::hasattr(said, "group")) {
            take_group(said, moved, crowded);
            continue;
        }
        auto& flow = *reinterpret_cast<Flow*>(nb::cast<std::uintptr_t>(active_[said.attr("flow")]));
        const nb::object reason = said.attr("reason");
        told(flow, nb::cast<int>(said.attr("level")), nb::cast<double>(said.attr("order")),
             number_or(said.attr("rate_bps"), NO_RATE), text_of(reason), moved, crowded);
    }
}

// --- groups -----------------------------------------------------------------------------------------

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

// A verdict on all flows of a group. If only the order changes, the flows themselves stay as they are.
void Transport::take_group(nb::handle said, Flows& moved, Pools& crowded) {
    FlowGroup& group = *groups_.at(nb::cast<std::string>(said.attr("group")));
    const int level = nb::cast<int>(said.attr("level"));
    const double order = nb::cast<double>(said.attr("order"));
    const std::int64_t rate = number_or(said.attr("rate_bps"), NO_RATE);
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
    const nb::object reason = said.attr("reason");
    for (Flow* flow : group.flows) {
        if (flow != nullptr && (flow->level != level || flow->rate != rate)) {
            told(*flow, level, order, rate, text_of(reason), moved, crowded);
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

void Transport::obey_python(nb::handle assignments) {
    if (nb::len(assignments) == 0) {
        return;
    }
    Flows moved;
    Pools crowded;
    take_python(assignments, moved, crowded);
    lend_all(crowded, moved);
    for (Flow* flow : moved) {
        move(*flow);
    }
}

void Transport::lend_all(const Pools& crowded, Flows& moved) {
    for (Pool* pool : crowded) {
        lend(*pool, moved);
    }
}

void Transport::lend(Pool& pool, Flows& moved) {
    pool.lend([&](Claim* holder, Claim* waiting) {
        Flow& lent = *static_cast<Flow*>(holder);
        const std::string reason = "its lane is needed by " + static_cast<Flow*>(waiting)->text +
                                   ", which waits at " + LEVEL_NAMES[waiting->level];
        note(lent, lent.level_last, reason);
        moved.push_back(&lent);
    });
}

void Transport::note(Flow& flow, int before, std::string_view reason) {
    flow.moved_to(flow.wanted);
    if (!world_.options.decisions) {
        return;
    }
    DecisionRows& rows = world_.decisions;
    rows.time_ns.push_back(world_.now());
    rows.flow.add(flow.text);
    rows.level_from.push_back(static_cast<std::int8_t>(before));
    rows.level_to.push_back(static_cast<std::int8_t>(flow.wanted));
    rows.reason.add(reason);
    if (rows.size() >= BLOCK_ROWS) {
        world_.give_decisions();
    }
}

void Transport::move(Flow& flow) {
    const bool bounded = flow.bounded();
    for (const Sent& sent : flow.streams) {
        world_.links.move(sent.stream, flow.place(), bounded ? flow.bound(sent.message.peer) : UNBOUNDED);
    }
}

// --- lanes ------------------------------------------------------------------------------------------

void Transport::carry_out(const Flows& moved, Pool* pool) {
    std::vector<Claim*> granted;
    Flows lent;
    if (pool != nullptr) {
        pool->fill(granted);
        if (!pool->waiting.empty()) {
            lend(*pool, lent);
        }
    }
    for (Flow* flow : moved) {
        move(*flow);
    }
    for (Claim* claim : granted) {
        Flow& flow = *static_cast<Flow*>(claim);
        if (flow.route < 0) {
            flow.route = flow.lane->route;
        }
        flow.path = world_.routes[flow.route].name;
        permitted(flow);
        flow.after = world_.options.transfer_ns;
        send(flow, {{flow.dst, flow.size}}, nullptr);
    }
    for (Flow* flow : lent) {
        move(*flow);
    }
}

// The flow has its lane, and may start as soon as its level is in force there.
void Transport::permitted(Flow& flow) {
    const bool kept = flow.lane->level == flow.wanted;
    flow.lane_ns = world_.now();
    flow.permit = flow.lane_ns + (kept ? world_.options.permit_kept_ns : world_.options.permit_ns);
}

// Bytes that a flow of `size` will put on each link, as far as known before it has a lane. A link that every
// lane crosses gets all bytes; a link that n of m lanes cross gets n/m of them.
void Transport::set_load(LanePool& lanes, std::int64_t size) {
    if (lanes.load_size == size) {
        return;
    }
    lanes.load_size = size;
    lanes.load.clear();
    const auto count = static_cast<std::int64_t>(lanes.pool.lanes.size());
    for (const auto& [link, crossing] : lanes.lanes_on) {
        lanes.load.push_back({link, size * crossing / count});
    }
    lanes.as_dict = world_.as_dict(lanes.load);
}

Transport::LanePool& Transport::lane_pool(int stage, int src, int dst) {
    auto& known = pools_[key(stage, src, dst)];
    if (known == nullptr) {
        const auto routes = nb::cast<std::vector<int>>(world_.host.lane_routes(stage, src, dst));
        known = std::make_unique<LanePool>(routes, world_.options.lanes);
        for (const int route : routes) {
            for (const int link : world_.routes[route].path) {
                auto at = std::find_if(known->lanes_on.begin(), known->lanes_on.end(),
                                       [&](const auto& each) { return each.first == link; });
                if (at == known->lanes_on.end()) {
                    known->lanes_on.emplace_back(link, 1);
                } else {
                    ++at->second;
                }
            }
        }
    }
    return *known;
}

// --- arrivals ---------------------------------------------------------------------------------------

void Transport::arrive(void* what) {
    const std::unique_ptr<Letter> letter(static_cast<Letter*>(what));
    through(*letter->flow, letter->message);
    --letter->flow->acts;
    let_go(*letter->flow);
}

void Transport::send_late(void* what) {
    const std::unique_ptr<LateLetters> late(static_cast<LateLetters*>(what));
    --late->flow->acts;
    send(*late->flow, late->letters, late->exchange);
}

void Transport::complete_empty(Flow& flow) {
    complete(flow);
    --flow.acts;
    let_go(flow);
}

void Transport::through(Flow& flow, const Message& message) {
    flow.owed -= message.size;
    if (message.exchange != nullptr) {
        message.exchange->arrived(flow.index, message.peer);
    }
    if (flow.owed == 0 && (message.size > 0 || flow.pool != nullptr)) {
        complete(flow);
    }
}

void Transport::complete(Flow& flow) {
    const Ns now = world_.now();
    if (world_.options.invariants) {
        const double narrowest = flow.pool == nullptr ? 0.0 : world_.routes[flow.route].narrowest;
        const Ns submit = flow.submit + world_.faults.submit_late_ns;
        disorder += !(submit <= flow.permit && flow.permit <= now && now <= last_moment);
        const auto size = static_cast<double>(flow.size - world_.options.burst_bytes);
        too_fast += narrowest > 0.0 && size > static_cast<double>(now - flow.permit + 1) * narrowest * (1 + ROUNDING);
    }
    row(flow);
    flow.lane->level = flow.wanted;
    if (flow.pool != nullptr) {
        flow.pool->release(flow.lane);
    } else {
        flow.lane->claim = nullptr;
    }
    Flows moved;
    Pools crowded;
    if (flow.standing != nullptr) {
        if (world_.loads != nullptr) {
            finished_bytes(flow);
        }
    } else {
        --python_flows_;
        tick_known_ = false;
        if (flow.group != nullptr) {
            leave_group(flow);
        }
        const nb::object assignments = world_.host.completion(now, flow.id);
        nb::del(active_[flow.id]);
        take_python(assignments, moved, crowded);
        lend_all(crowded, moved);
    }
    carry_out(moved, flow.pool);
    flow.complete = true;
    ++flow.acts;
    flow.awaits->completed(flow);
    --flow.acts;
    let_go(flow);
}

void Transport::let_go(Flow& flow) {
    if (flow.complete && flow.acts == 0 && !flow.buried) {
        flow.buried = true;
        dead_.emplace_back(&flow);
    }
}

void Transport::bury() { dead_.clear(); }

void Transport::own(int stream, Flow& flow) {
    if (stream >= static_cast<int>(owner_.size())) {
        owner_.resize(static_cast<std::size_t>(stream) + 1, nullptr);
    }
    owner_[stream] = &flow;
}

// How many of `size` bytes pass at once. At least one byte is left to send.
//
// In later rounds (`sharing` 0), none do: the measured `round_ns` already includes what ports let pass at once
// between rounds.
double Transport::passed(Route& route, std::int64_t size, int sharing) {
    const Ns now = world_.now();
    const double credit = sharing > 0 ? bursts_.credit(now, route.ports, sharing) : 0.0;
    const double passed = sharing > 0 ? std::min(static_cast<double>(size) - 1.0, credit) : 0.0;
    bursts_.begins(now, route.ports, passed);
    return passed;
}

std::vector<double> Transport::carried() const {
    std::vector<double> total = grouped_;
    for (const Route& route : world_.routes) {
        for (const int port : route.ports) {
            total[port] += route.carried;
        }
    }
    return total;
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

void Transport::row(const Flow& flow) {
    ++completed;
    if (!world_.faults.lost_flow.empty() && world_.faults.lost_flow == flow.text) {
        --completed;
        return;
    }
    FlowRows& rows = world_.flows;
    rows.id.add(flow.text);
    rows.stage.push_back(static_cast<std::int8_t>(flow.stage));
    rows.src.push_back(flow.src);
    rows.dst.push_back(flow.dst);
    rows.size_bytes.push_back(flow.size);
    rows.batch.push_back(flow.batch->name);
    rows.request.push_back(flow.request);
    rows.layer.push_back(flow.layer);
    rows.coflow.add(flow.coflow_text);
    rows.has_coflow.push_back(flow.has_coflow);
    rows.deadline_ns.push_back(flow.deadline);
    rows.submit_ns.push_back(flow.submit + world_.faults.submit_late_ns);
    rows.permit_ns.push_back(flow.permit);
    rows.lane_wait_ns.push_back(flow.lane_ns - flow.submit);
    rows.finish_ns.push_back(world_.now());
    rows.level_first.push_back(static_cast<std::int8_t>(flow.level_first));
    rows.level_last.push_back(static_cast<std::int8_t>(flow.level_last));
    rows.promotions.push_back(flow.promotions);
    rows.path.push_back(flow.path);
    if (rows.size() >= BLOCK_ROWS) {
        world_.give_flows();
    }
}

}  // namespace mfs
