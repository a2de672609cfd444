# SPDX-License-Identifier: Apache-2.0
"""Asks Nova's own code, in this process: a JSON request per line of stdin, a JSON answer per line of stdout.

A host is a list of cells {"cpus", "siblings", "memory", "usedCpus", "usedMemory", "pages": [[KiB, total, used]]}, a guest
{"threads": policy, "page": KiB (-1: the smallest), "cells": [[vCPUs, MiB]]}, always with dedicated CPUs.
"""
import itertools
import json
import sys
import time

from nova import objects
from nova.virt import hardware

objects.register_all()

# The filter has them from the host; they count for shared CPUs only, but are asked for in the signature.
LIMITS = objects.NUMATopologyLimits(cpu_allocation_ratio=1.0, ram_allocation_ratio=1.0)


def host_of(cells):
    return objects.NUMATopology(cells=[
        objects.NUMACell(
            id=index,
            # Equal sets: Nova's way to say that a core's other threads may be left empty (isolate).
            cpuset=set(cell["cpus"]),
            pcpuset=set(cell["cpus"]),
            memory=cell["memory"],
            cpu_usage=len(cell["usedCpus"]),
            memory_usage=cell["usedMemory"],
            pinned_cpus=set(cell["usedCpus"]),
            siblings=[set(siblings) for siblings in cell["siblings"]],
            mempages=[objects.NUMAPagesTopology(size_kb=size, total=total, used=used)
                      for size, total, used in cell["pages"]],
            socket=index)
        for index, cell in enumerate(cells)])


def guest_of(guest):
    cells = []
    vcpu = 0
    for index, (vcpus, memory) in enumerate(guest["cells"]):
        cells.append(objects.InstanceNUMACell(
            id=index, cpuset=set(), pcpuset=set(range(vcpu, vcpu + vcpus)), memory=memory, pagesize=guest["page"],
            cpu_policy="dedicated", cpu_thread_policy=guest["threads"]))
        vcpu += vcpus
    return objects.InstanceNUMATopology(cells=cells)


def fit(host, guest):
    """The guest as placed; it is changed on the way, so that each call needs one of its own."""
    return hardware.numa_fit_instance_to_host(host, guest, limits=LIMITS)


def verdicts(request):
    return [fit(host_of(host), guest_of(guest)) is not None for host, guest in request["cases"]]


def exact(request):
    """Verdicts of the same code cell by cell: each guest cell is asked about on each host cell with objects of their own.

    numa_fit_instance_to_host remembers pairs by the ids of host cell and guest cell, but a fit changes the guest cell's id
    to the host cell's. Two guest cells then have one key, and one gets the other's "does not fit".
    """
    answers = []
    for host, guest in request["cases"]:
        fits = []
        for index in range(len(guest["cells"])):
            fits.append([
                hardware._numa_fit_instance_cell(host_of(host).cells[at], guest_of(guest).cells[index], LIMITS) is not None
                for at in range(len(host))])
        answers.append(any(
            all(row[at] for row, at in zip(fits, chosen))
            for chosen in itertools.permutations(range(len(host)), len(fits))))
    return answers


def timing(request):
    """Microseconds of each fit alone, without making its objects."""
    host = host_of(request["host"])
    times = []
    verdict = None
    for _ in range(request["rounds"]):
        guest = guest_of(request["guest"])
        began = time.perf_counter_ns()
        verdict = fit(host, guest)
        times.append((time.perf_counter_ns() - began) / 1000)
    return {"microseconds": times, "fits": verdict is not None}


def weights(values):
    """As nova.weights does it: from 0 to 1 between the least and the most."""
    least, most = min(values), max(values)
    return [(value - least) / (most - least) if most > least else 0.0 for value in values]


def fill(request):
    """The scheduler's loop: NUMATopologyFilter on every host, then the weighers that count here (free RAM, free vCPUs)."""
    hosts = [host_of(request["host"]) for _ in range(request["hosts"])]
    answer = []
    for wanted in request["guests"]:
        fitting = []
        for index, host in enumerate(hosts):
            placed = fit(host, guest_of(wanted))
            if placed is not None:
                fitting.append((index, placed))
        if not fitting:
            answer.append(None)
            continue
        ram = weights([sum(cell.avail_memory for cell in hosts[index].cells) for index, _ in fitting])
        cpus = weights([sum(cell.avail_pcpus for cell in hosts[index].cells) for index, _ in fitting])
        best = max(range(len(fitting)), key=lambda at: ram[at] + cpus[at])
        index, placed = fitting[best]
        hosts[index] = hardware.numa_usage_from_instance_numa(hosts[index], placed)
        answer.append({"host": index, "cells": [cell.id for cell in placed.cells]})
    return answer


OPERATIONS = {"verdicts": verdicts, "exact": exact, "timing": timing, "fill": fill}

for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps(OPERATIONS[asked["ask"]](asked)), flush=True)
