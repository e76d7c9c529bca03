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

}  // namespace

Transport::Transport(World& world)
    : world_(world),
      bursts_(world.links, world.network_ports, world.options.burst_bytes),
      claims_([this](Ns, const Claim& claim, int before, std::string_view reason) { note(claim, before, reason); }),
      grouped_(static_cast<std::size_t>(world.network_ports), 0.0) {}

// --- from the ranks ---------------------------------------------------------------------------------

void Transport::post(nb::handle transfer, Awaits* awaits, void* for_what) {
    auto* flow = new Flow();
    flow->transfer = nb::borrow(transfer);
    flow->id = get<"id">(transfer);
    flow->text = text_of(flow->id);
    flow->stage = world_.stage(get<"stage">(transfer));
    flow->src = nb::cast<int>(get<"src">(transfer));
    flow->dst = nb::cast<int>(get<"dst">(transfer));
    flow->size = nb::cast<std::int64_t>(get<"size_bytes">(transfer));
    flow->batch = world_.batch(get<"batch">(transfer));
    flow->layer = static_cast<int>(number_or(get<"layer">(transfer), NO_NAME));
    flow->request = number_or(get<"request">(transfer), NONE);
    flow->deadline = number_or(get<"deadline_ns">(transfer), NONE);
    name_coflow(*flow, get<"coflow">(transfer));
    flow->owed = flow->unsent = flow->told = flow->size;
    flow->submit = flow->lane_ns = world_.now();
    flow->awaits = awaits;
    flow->for_what = for_what;
    LanePool& lanes = lane_pool(flow->stage, flow->src, flow->dst);
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
    claims_.submit(*flow, lanes.pool);
    if (world_.options.groups) {
        join_group(*flow);
    }
    Heard heard;
    if (flow->standing != nullptr) {
        take_standing(*flow, heard);
    } else {
        submit(*flow, flow->transfer, load, heard);
    }
    claims_.lend_all(world_.now(), heard);
    carry_out(heard.moved, &lanes.pool);
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
    auto& side = sides_[lane_key(S2, opened.group, opened.index)];
    if (side == nullptr) {
        side = std::make_unique<Lane>();
    }
    claims_.submit_on(*flow, *side);
    flow->standing = standing(*flow->batch, S2);
    Heard heard;
    if (flow->standing != nullptr) {
        take_standing(*flow, heard);
    } else {
        nb::object transfer = world_.host.transfer_of(opened.step, opened.index, opened.src, share.size,
                                                      opened.batch->id, opened.layer, opened.whole);
        flow->id = get<"id">(transfer);
        flow->transfer = transfer;
        if (!share.as_dict.is_valid()) {
            share.as_dict = world_.as_dict(share.load);
        }
        submit(*flow, transfer, share.as_dict, heard);
    }
    claims_.lend_all(world_.now(), heard);
    move_all(heard.moved);
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
        const Message message{peer, size, exchange, after + route.latency};
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
            world_.at(now + message.after, Does::ARRIVE, new Letter{&flow, message});
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
    leave(flow);
    Heard heard;
    if (counts_bytes(flow)) {
        finished_bytes(flow);
    }
    if (flow.standing == nullptr) {
        --python_flows_;
        tick_known_ = false;
        if (flow.group != nullptr) {
            leave_group(flow);
        }
        const nb::object assignments = world_.host.completion(now, flow.id);
        nb::del(active_[flow.id]);
        take_python(assignments, heard);
        claims_.lend_all(now, heard);
    }
    carry_out(heard.moved, flow.pool);
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

void Transport::row(const Flow& flow) {
    if (!world_.faults.lost_flow.empty() && world_.faults.lost_flow == flow.text) {
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
