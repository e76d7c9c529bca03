#include "testbed/simulation/core/core.hpp"

namespace mfs {

namespace {
constexpr double RATES = 1e-9;           // the share of a rate that rounding may lose
constexpr std::int64_t STEPS_A_LOOK = 1024;  // at the wall clock
constexpr std::int64_t STANDSTILL = 10'000;  // looks
constexpr std::chrono::milliseconds REPORT(500);
}  // namespace

Core::~Core() {
    for (const Act& act : world.agenda.acts()) {
        if (act.does == Does::CALL || act.does == Does::POST) {
            nb::handle(static_cast<PyObject*>(act.what)).dec_ref();
        }
    }
}

void Core::flush() {
    world.give_flows();
    world.give_decisions();
    world.give_spans();
}

void Core::at(Ns time, nb::handle callable) {
    callable.inc_ref();
    world.at(time, Does::CALL, callable.ptr());
}

void Core::post_at(Ns time, nb::handle transfer) {
    transfer.inc_ref();
    world.at(time, Does::POST, transfer.ptr());
}

void Core::run() {
    while (!finished() || world.links.size() > 0) {
        step();
    }
}

bool Core::finished() {
    if (world.told) {
        world.told = false;
        finished_ = nb::cast<bool>(world.host.finished());
    }
    return finished_;
}

// The acts that are due now. Then time moves on, and the streams that end and the tick follow.
void Core::step() {
    Act act;
    while (world.agenda.take_due(act)) {
        perform(act);
        ++events;
        transport.bury();
        exchanges.bury();
        ranks.bury();
    }
    if (finished() && world.links.size() == 0) {
        return;  // that was the last moment
    }
    const Ns before = world.now();
    world.links.settle(before);
    if (world.faults.rate_factor != 1.0) {
        world.links.falsify_all(world.faults.rate_factor);
    }
    if (before >= look_due_) {
        look_due_ = nb::cast<Ns>(world.host.look(before));
        sample();
    }
    Ns next = std::min(next_end_ns(), look_ns());
    if (!world.agenda.empty()) {
        next = std::min(next, world.agenda.next_ns());
    }
    if (next == NEVER || stands_still()) {
        world.host.stuck();
        throw std::logic_error("nothing moves and nothing is planned");
    }
    back += next < transport.last_moment;
    transport.last_moment = std::max(transport.last_moment, next);
    const Ns now = world.agenda.now = std::max(before, next);
    world.moving += world.links.size() * (now - before);
    ended_.clear();
    world.links.take_finished(now, ended_);
    if (!ended_.empty()) {
        events += static_cast<std::int64_t>(ended_.size());
        transport.finished(ended_);
    }
    if (look_ns() <= now) {
        if (now >= progress_due_) {
            transport.report_progress();
            progress_due_ = now + world.options.progress_ns;
        }
        if (transport.next_tick_ns() <= now) {
            transport.tick();
        }
    }
    transport.bury();
    exchanges.bury();
    ranks.bury();
    if (++steps_ % STEPS_A_LOOK == 0) {
        report();
    }
}

void Core::perform(const Act& act) {
    switch (act.does) {
        case Does::CALL: {
            const nb::object callable = nb::steal(static_cast<PyObject*>(act.what));
            world.told = true;
            callable();
            break;
        }
        case Does::RESUME:
            ranks.advance(*static_cast<RankRun*>(act.what));
            break;
        case Does::ENTER:
            exchanges.enter(act.what, act.more[0], act.more[1]);
            break;
        case Does::COMPUTED:
            exchanges.computed(act.what, act.more[0], act.more[1]);
            break;
        case Does::ARRIVE:
            transport.arrive(act.what);
            break;
        case Does::COMPLETE:
            transport.complete_empty(*static_cast<Flow*>(act.what));
            break;
        case Does::SEND:
            transport.send_late(act.what);
            break;
        case Does::BEGIN_GROUP: {
            Flow& flow = *static_cast<Flow*>(act.what);
            --flow.acts;
            transport.begin_group(flow);
            break;
        }
        case Does::FIRST_TOKEN:
            ranks.first_token(act.what);
            break;
        case Does::POST: {
            const nb::object transfer = nb::steal(static_cast<PyObject*>(act.what));
            ranks.post(transfer);
            break;
        }
    }
}

Ns Core::next_end_ns() {
    if (world.faults.early_end >= 0 && looks_++ == world.faults.early_end) {
        return 5;
    }
    return world.links.next_end_ns();
}

// Whether nothing will ever move again, because a port is down for good. The scheduler and the reports of progress
// go on even then, so they count only for so many looks: a policy that paces flows may let them wait for a while.
bool Core::stands_still() {
    const bool waits = world.ports_down > 0 && world.agenda.empty() && world.links.next_end_ns() == NEVER;
    standstill_ = waits ? standstill_ + 1 : 0;
    return standstill_ > STANDSTILL;
}

// When the scheduler's next tick or the next progress report is due.
Ns Core::look_ns() {
    const Ns tick = transport.next_tick_ns();
    if (world.links.size() == 0) {
        return tick;
    }
    // Without streams there are no progress reports, so the next one may be overdue.
    return std::min(tick, std::max(progress_due_, world.now()));
}

// Checks all streams.
void Core::sample() {
    if (!world.options.invariants) {
        return;
    }
    fullest = std::max(fullest, world.links.fullest_now());
    if (world.strict) {
        slow_streams += world.links.held_back(RATES);
    }
}

void Core::report() {
    if (PyErr_CheckSignals() != 0) {
        throw nb::python_error();
    }
    const auto now = std::chrono::steady_clock::now();
    if (now - reported_ >= REPORT) {
        reported_ = now;
        world.host.report();
    }
}

}  // namespace mfs
