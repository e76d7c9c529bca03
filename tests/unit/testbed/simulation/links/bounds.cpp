// Random streams on few ports, for `test_bounds.py`. Whatever the sanitizers find ends the program.
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "testbed/simulation/core/links.hpp"

int main() {
    std::mt19937 random(7);
    const auto below = [&](int end) { return static_cast<int>(random() % end); };
    const auto level = [&] { return below(4) ? mfs::LEVELS - 1 : below(mfs::LEVELS); };  // nothing is below it
    const auto cap = [&] { return below(3) ? std::numeric_limits<double>::infinity() : 0.1 * (1 + below(9)); };
    for (int run = 0; run < 24; ++run) {
        const double guarantee = run % 2 ? 0.02 : 0.0;
        const bool grouped = run >= 16;  // every stream is in a group; in the last runs, most have two ports and no cap
        const bool plain = run >= 20;
        const bool bundled = grouped || run % 4 >= 2;
        const std::vector<double> level_weights = {0, 1, 2, 3, 4, 5, 99, 0};
        const int ports = 2 + below(3);
        std::vector<double> capacity;
        for (int port = 0; port < ports; ++port) capacity.push_back(1.0 + below(2));
        std::vector<int> ordered_ports;
        for (int port = 0; run / 8 == 1 && port < ports; ++port) ordered_ports.push_back(port % 2);
        const bool weighted = run / 4 % 2 && !grouped;
        mfs::Links links(capacity, guarantee, bundled, weighted ? level_weights : std::vector<double>(), ordered_ports);
        std::vector<int> groups;
        while (grouped && groups.size() < 4) groups.push_back(links.add_group(groups.size() / 2));
        std::vector<int> alive;
        std::map<int, int> hops;
        std::vector<int> finished;
        mfs::Ns now = 0;
        for (int step = 0; step < 300; ++step) {
            for (int count = below(step % 30 ? 6 : 270); count > 0; --count) {  // now and then many at once
                int path[4] = {0, 1, 2, 3};
                for (int i = ports - 1; i > 0; --i) std::swap(path[i], path[below(i + 1)]);
                const double weights[4] = {0.5, 1.0, 2.0, 3.0};
                const bool simple = plain && below(400);
                const int crossed = simple ? 2 : 1 + below(ports);
                const double limit = simple ? std::numeric_limits<double>::infinity() : cap();
                mfs::Place place{simple ? mfs::LEVELS - 1 : level(), grouped ? 0.0 : 1.0 * below(2)};
                if (grouped) place.group = groups[below(static_cast<int>(groups.size()))];
                alive.push_back(links.add(path, crossed, 1 + below(5000), place, limit,
                                          bundled || below(3) ? nullptr : weights));
                hops[alive.back()] = crossed;
            }
            for (int count = plain ? 0 : below(4); count > 0 && !alive.empty(); --count) {
                mfs::Place place{level(), 0.0};
                if (grouped) place.group = groups[below(static_cast<int>(groups.size()))];
                links.move(alive[below(static_cast<int>(alive.size()))], place, cap());
            }
            if (grouped && below(2)) links.set_order(groups[below(static_cast<int>(groups.size()))], below(5));
            if (below(3) == 0) links.busy_ns(now, 0);
            links.settle(now);
            if (guarantee == 0.0 && links.held_back(1e-9) != 0) return std::puts("held back"), 1;
            if (links.unsettled() > 0) return std::puts("unsettled"), 1;
            double left = 0.0;
            for (const int stream : alive) left += hops[stream] * links.left_bytes(stream, now);
            std::vector<double> on_ports(capacity.size());
            for (const int group : groups) links.add_left_on_ports(group, now, on_ports.data());
            for (const double on_port : on_ports) left -= on_port;
            if (grouped && std::abs(left) > 1e-3) return std::puts("other bytes left"), 1;
            if (links.next_end_ns() != mfs::NEVER) now = links.next_end_ns();
            finished.clear();
            links.take_finished(now, finished);
            for (const int stream : finished) std::erase(alive, stream);
        }
        links.settle(now);
        std::vector<double> sent(static_cast<std::size_t>(ports) * mfs::LEVELS);
        links.sent_bytes(now, sent.data());
        if (links.size() != static_cast<int>(alive.size())) return std::puts("lost"), 1;
    }
    std::puts("done");
}
