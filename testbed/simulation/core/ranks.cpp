#include "testbed/simulation/core/ranks.hpp"

namespace mfs {

// What a flow tells the ranks when it is there, in `Flow::for_what`.
namespace {
char CONDUCTOR, REQUEST, LAYER;

// One number for the S1 flows of a plan to a rank for a layer.
std::int64_t fetch_number(int batch, int layer, int rank) {
    return (static_cast<std::int64_t>(batch + 1) << 40) | (static_cast<std::int64_t>(layer & 0xFFFF) << 24) | rank;
}
}  // namespace

void RankRun::on() { ranks.advance(*this); }

// --- plans ------------------------------------------------------------------------------------------

void Ranks::expect(nb::handle plan, bool is_batch) {
    if (is_batch) {
        BatchInfo* batch = world_.batch(get<"id">(plan));
        for (nb::handle request : get<"requests">(plan)) {
            Delivery& expected = delivery(nb::cast<std::int64_t>(get<"request">(request)));
            expected.known = true;
            expected.last = nb::cast<bool>(get<"last">(request));
            expected.flows = 0;
            for (const std::int64_t flows : nb::cast<std::vector<std::int64_t>>(get<"p2d_flows">(request))) {
                expected.flows += flows;
            }
            expected.decode_ranks = nb::cast<std::vector<int>>(get<"decode_ranks">(request));
            expected.decode_step_s = nb::cast<double>(get<"decode_step_s">(request));
            expected.batch = batch->name;
        }
    }
    for (nb::handle layer : get<"layers">(plan)) {
        for (nb::handle transfer : is_batch ? get<"wait">(layer) : nb::borrow(layer)) {
            ++fetches_[fetch_of(transfer)].missing;
        }
    }
}

void Ranks::run(nb::handle said) {
    std::unique_ptr<Plan> made = read(said);
    Plan& plan = *made;
    plans_[plan.batch->text] = std::move(made);
    for (std::size_t place = 0; place < plan.ranks.size(); ++place) {
        const int rank = plan.ranks[place];
        auto* run = new RankRun(*this, plan, rank, static_cast<int>(place));
        if (is_busy(rank)) {
            lines_[rank].push_back(run);
        } else {
            set_busy(rank, true);
            advance(*run);
        }
    }
}

void Ranks::go_on(nb::handle said) {
    Plan& plan = *plans_.at(nb::cast<std::string>(get<"id">(said)));
    for (const int rank : plan.ranks) {
        set_busy(rank, true);
    }
    std::vector<RankRun*> paused;
    paused.swap(plan.paused);
    for (RankRun* run : paused) {
        advance(*run);
    }
}

std::unique_ptr<Plan> Ranks::read(nb::handle said) {
    auto plan = std::make_unique<Plan>();
    plan->id = get<"id">(said);
    plan->batch = world_.batch(plan->id);
    plan->ranks = nb::cast<std::vector<int>>(get<"ranks">(said));
    plan->unfinished = plan->ranks.size();
    std::unordered_map<int, int> place_of;
    for (std::size_t place = 0; place < plan->ranks.size(); ++place) {
        place_of[plan->ranks[place]] = static_cast<int>(place);
    }
    const nb::object pause = get<"pause_every">(said);
    const int pause_every = pause.is_none() ? 0 : nb::cast<int>(pause);
    for (nb::handle each : get<"layers">(said)) {
        auto layer = std::make_unique<Layer>();
        layer->index = nb::cast<int>(get<"index">(each));
        layer->pauses = pause_every > 0 && layer->index > 0 && layer->index % pause_every == 0;
        layer->posts.resize(plan->ranks.size());
        layer->awaited.resize(plan->ranks.size());
        layer->fetches.assign(plan->ranks.size(), 0);
        read_steps(get<"steps">(each), *layer);
        read_transfers(each, *layer, place_of);
        plan->layers.push_back(std::move(layer));
    }
    return plan;
}

void Ranks::read_steps(nb::handle steps, Layer& layer) {
    layer.steps.reserve(nb::len(steps));  // collectives are referred to by address
    for (nb::handle said : steps) {
        Step& step = layer.steps.emplace_back();
        step.label = world_.names.number(nb::cast<std::string>(get<"label">(said)));
        if (nb::hasattr(said, "seconds")) {
            step.seconds = nb::cast<std::vector<double>>(get<"seconds">(said));
            continue;
        }
        step.collective.object = nb::borrow(said);
        step.collective.id = nb::cast<std::string>(get<"id">(said));
        step.collective.group = exchanges_.group(get<"group">(said));
        step.collective.kind = world_.kind(get<"kind">(said));
        step.collective.label = step.label;
        step.collective.round_seconds = nb::cast<std::vector<std::vector<double>>>(get<"round_seconds">(said));
    }
}

void Ranks::read_transfers(nb::handle said, Layer& layer, const std::unordered_map<int, int>& place_of) {
    for (const char* kind : {"wait", "under_way"}) {
        for (nb::handle transfer : nb::handle(said.attr(kind))) {
            const auto at = place_of.find(nb::cast<int>(get<"dst">(transfer)));
            if (at == place_of.end()) {
                continue;
            }
            ++layer.fetches[at->second];
            const std::int64_t number = fetch_of(transfer);
            auto& awaited = layer.awaited[at->second];
            if (std::find(awaited.begin(), awaited.end(), number) == awaited.end()) {
                awaited.push_back(number);
            }
        }
    }
    for (nb::handle transfer : get<"post">(said)) {
        const auto at = place_of.find(nb::cast<int>(get<"src">(transfer)));
        if (at != place_of.end()) {
            layer.posts[at->second].push_back(nb::borrow(transfer));
        }
    }
}

std::int64_t Ranks::fetch_of(nb::handle transfer) {
    const nb::object layer = get<"layer">(transfer);
    return fetch_number(world_.batch(get<"batch">(transfer))->name, layer.is_none() ? NO_NAME : nb::cast<int>(layer),
                        nb::cast<int>(get<"dst">(transfer)));
}

// --- transfers --------------------------------------------------------------------------------------

void Ranks::post(nb::handle transfer) {
    const Ns until = world_.slowdowns.empty() ? 0 : world_.paused_until(nb::cast<int>(get<"src">(transfer)));
    if (until > world_.now()) {
        transfer.inc_ref();
        world_.at(until, Does::POST, transfer.ptr());
        return;
    }
    void* for_what = &CONDUCTOR;
    if (!get<"request">(transfer).is_none()) {
        for_what = world_.stage(get<"stage">(transfer)) == S3 ? &REQUEST : &LAYER;
    }
    transport_.post(transfer, this, for_what);
}

void Ranks::completed(Flow& flow) {
    if (flow.for_what == &CONDUCTOR) {
        world_.told = true;
        world_.host.arrived(flow.id);
    } else if (flow.for_what == &REQUEST) {
        Delivery& expected = delivery(flow.request);
        ++expected.arrived;
        expected.end = world_.now();
        check_delivery(expected);
    } else {
        const auto at = fetches_.find(fetch_number(flow.batch->name, flow.layer, flow.dst));
        if (--at->second.missing == 0) {
            RankRun* waiter = at->second.waiter;
            fetches_.erase(at);
            if (waiter != nullptr) {
                advance(*waiter);
            }
        }
    }
}

Ranks::Delivery& Ranks::delivery(std::int64_t request) {
    auto& known = deliveries_[request];
    if (known == nullptr) {
        known = std::make_unique<Delivery>();
        known->request = request;
    }
    return *known;
}

void Ranks::check_delivery(Delivery& expected) {
    if (expected.known && expected.last && expected.arrived >= expected.flows) {
        const auto at = deliveries_.find(expected.request);
        Delivery* done = at->second.release();
        deliveries_.erase(at);
        done->begun = world_.now();
        Ns last = done->begun;
        for (const int rank : done->decode_ranks) {
            last = std::max(last, world_.ends_ns(rank, done->begun, done->decode_step_s));
        }
        world_.at(last, Does::FIRST_TOKEN, done);
    }
}

void Ranks::first_token(void* what) {
    const std::unique_ptr<Delivery> done(static_cast<Delivery*>(what));
    const int label = world_.names.number("request " + std::to_string(done->request));
    for (const int rank : done->decode_ranks) {
        const Ns end = world_.ends_ns(rank, done->begun, done->decode_step_s);
        world_.span_until(end, rank, SpanKind::DECODE_STEP, label, done->batch, NO_NAME, done->end);
    }
    world_.told = true;
    world_.host.first_token(done->request, done->end);
}

// --- the layer loop ---------------------------------------------------------------------------------

void Ranks::set_busy(int rank, bool busy) {
    if (rank >= static_cast<int>(busy_.size())) {
        busy_.resize(static_cast<std::size_t>(rank) + 1, false);
    }
    busy_[rank] = busy;
}

// Goes on with a rank's batch, after its pause if it is paused. A rank runs its batches strictly in the order in which it got them.
void Ranks::advance(RankRun& run) {
    const Ns until = world_.paused_until(run.rank);
    if (until > world_.now()) {
        world_.at(until, Does::RESUME, &run);
        return;
    }
    if (!work(run)) {
        return;
    }
    const int rank = run.rank;
    finish(run);
    const auto line = lines_.find(rank);
    if (line != lines_.end() && !line->second.empty()) {
        RankRun* following = line->second.front();
        line->second.pop_front();
        advance(*following);
    } else {
        set_busy(rank, false);
    }
}

// Works until the rank has to wait (false) or has finished the plan (true). Where it waits, `advance` is called
// once it may go on, perhaps before the call that made it wait has returned: nothing may follow such a call.
bool Ranks::work(RankRun& run) {
    for (;;) {
        Layer* layer = run.layer < run.plan.layers.size() ? run.plan.layers[run.layer].get() : nullptr;
        switch (run.at) {
            case RankRun::At::BEGIN:
                run.start = world_.now();
                run.at = RankRun::At::LAYER;
                break;
            case RankRun::At::LAYER:
                if (layer == nullptr) {
                    world_.told = true;
                    world_.host.layer_begun(run.plan.id, run.rank, run.plan.layers.size());
                    report(world_.host.rank_done, run, nb::int_(run.start));
                    return true;
                }
                if (layer->pauses) {
                    run.since = world_.now();
                    run.at = RankRun::At::PAUSED;
                    pause(run);
                    return false;
                }
                [[fallthrough]];
            case RankRun::At::PAUSED:
                if (run.at == RankRun::At::PAUSED && world_.now() > run.since) {
                    world_.span(run.rank, SpanKind::PAUSED, world_.names.number(""), run.plan.batch->name,
                                layer->index, run.since);
                }
                run.at = RankRun::At::FETCHES;
                run.fetch = 0;
                world_.told = true;
                world_.host.layer_begun(run.plan.id, run.rank, layer->index);
                run.since = world_.now();
                break;
            case RankRun::At::FETCHES: {
                const auto& awaited = layer->awaited[run.place];
                while (run.fetch < awaited.size()) {
                    const auto at = fetches_.find(awaited[run.fetch++]);
                    if (at != fetches_.end()) {
                        at->second.waiter = &run;
                        return false;
                    }
                }
                if (layer->fetches[run.place] > 0) {
                    const int label = world_.names.number(std::to_string(layer->fetches[run.place]) + " flows");
                    world_.span(run.rank, SpanKind::S1_WAIT, label, run.plan.batch->name, layer->index, run.since);
                }
                run.step = 0;
                run.at = RankRun::At::STEPS;
                break;
            }
            case RankRun::At::JOINED: {
                const Step& step = layer->steps[run.step++];
                if (run.in_compute) {
                    world_.span(run.rank, SpanKind::COMPUTE, step.label, run.plan.batch->name, layer->index, run.since);
                } else if (step.collective.round_seconds.empty()) {
                    world_.span(run.rank, SpanKind::COLLECTIVE, step.label, run.plan.batch->name, layer->index,
                                run.since);
                }
                run.at = RankRun::At::STEPS;
                break;
            }
            case RankRun::At::STEPS:
                if (!go_through_steps(run)) {
                    return false;
                }
                for (const nb::object& transfer : layer->posts[run.place]) {
                    post(transfer);
                }
                layer->posts[run.place].clear();
                ++run.layer;
                run.at = RankRun::At::LAYER;
                break;
        }
    }
}

// Begins steps until one takes time (false) or none is left (true).
bool Ranks::go_through_steps(RankRun& run) {
    Layer& layer = *run.plan.layers[run.layer];
    for (; run.step < layer.steps.size(); ++run.step) {
        Step& step = layer.steps[run.step];
        run.since = world_.now();
        if (!step.seconds.empty()) {
            const Ns ends = world_.ends_ns(run.rank, run.since, step.seconds[run.place]);
            if (ends > run.since) {
                run.at = RankRun::At::JOINED;
                run.in_compute = true;
                world_.at(ends, Does::RESUME, &run);
                return false;
            }
            world_.span(run.rank, SpanKind::COMPUTE, step.label, run.plan.batch->name, layer.index, run.since);
        } else if (exchanges_.index_in(step.collective.group, run.rank) >= 0) {
            run.at = RankRun::At::JOINED;
            run.in_compute = false;
            exchanges_.join(step.collective, run.plan.batch, layer.index, run.rank, &run);
            return false;
        }
    }
    return true;
}

// Pauses a rank. It is free for another batch until it may go on.
void Ranks::pause(RankRun& run) {
    run.plan.paused.push_back(&run);
    set_busy(run.rank, false);
    report(world_.host.paused, run, nb::int_(run.plan.layers[run.layer]->index));
}

// Reports by a message, as the ranks of other fabrics do. Here it takes no time.
void Ranks::report(const nb::object& event, RankRun& run, nb::handle more) {
    event(run.plan.id, run.rank, more);
}

void Ranks::finish(RankRun& run) {
    dead_.emplace_back(&run);
    if (--run.plan.unfinished == 0) {
        const auto at = plans_.find(run.plan.batch->text);
        dead_plans_.push_back(std::move(at->second));
        plans_.erase(at);
    }
}

void Ranks::bury() {
    dead_.clear();
    dead_plans_.clear();
}

}  // namespace mfs
