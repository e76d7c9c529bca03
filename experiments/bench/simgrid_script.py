"""A flow set through SimGrid: a script for the system's Python, which has SimGrid's binding.

It imports nothing of ours. Standard input has the flow set and settings as JSON, standard output gets the
finish times. The settings leave pure max-min fairness over the links of a route: the model CM02 without
correction factors, no latency, and no traffic of acknowledgements on the way back (crosstraffic).
"""

import json
import sys
import time

import simgrid

SETTINGS = (
    "network/model:CM02",
    "network/crosstraffic:0",
    "network/bandwidth-factor:1",
    "network/latency-factor:1",
    "network/weight-S:0",
    # The binding gives each actor a thread, which takes 1.2 to 2 times as long. This is what SimGrid takes in
    # C++, and it works in Python with one actor.
    "contexts/factory:raw",
)


def main() -> None:
    asked = json.load(sys.stdin)
    settings = [*SETTINGS, f"network/optim:{asked['optim']}"]
    engine = simgrid.Engine(["bench", "--log=root.thres:warning", *(f"--cfg={text}" for text in settings)])
    zone = simgrid.NetZone.create_full_zone("net")
    names = {name for flow in asked["flows"] for name in (flow["src"], flow["dst"])}
    hosts = {name: zone.create_host(name, 1e9) for name in sorted(names)}
    links = {name: zone.create_link(name, bps / 8).seal() for name, bps in asked["bps"].items()}
    routes: dict[tuple[str, str], list[str]] = {}
    for flow in asked["flows"]:
        pair = flow["src"], flow["dst"]
        if routes.setdefault(pair, flow["path"]) != flow["path"]:
            sys.exit(f"SimGrid has one route for each pair of hosts, but {pair} has two")
    for (src, dst), path in routes.items():
        hops = [simgrid.LinkInRoute(links[name]) for name in path]
        zone.add_route(hosts[src].netpoint, hosts[dst].netpoint, None, None, hops, False)
    zone.seal()
    flows = [
        (flow["start_ns"] / 1e9, hosts[flow["src"]], hosts[flow["dst"]], flow["size_bytes"])
        for flow in asked["flows"]
    ]
    messages = []

    def sender() -> None:
        """Start every message. One actor does it for all hosts, so that no time goes into switching."""
        for start_s, src, dst, size_bytes in flows:
            simgrid.this_actor.sleep_until(start_s)
            messages.append(simgrid.Comm.sendto_async(src, dst, size_bytes))
        simgrid.Comm.wait_all(messages)

    simgrid.Actor.create("sender", next(iter(hosts.values())), sender)
    begun, begun_cpu = time.perf_counter(), time.process_time()
    engine.run()
    told = {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": time.process_time() - begun_cpu,
        "version": simgrid.simgrid_version,
        "finish_ns": [message.finish_time * 1e9 for message in messages],
        "peak_bytes": peak_bytes(),
    }
    json.dump(told, sys.stdout)


def peak_bytes() -> int:
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
