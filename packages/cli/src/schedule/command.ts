// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import type { ScheduleOptions } from './run.ts';

const FILES = `
Files are JSON: a list, {"hosts": […]} or {"vms": […]}, or one object a line.
Memory is written 4GiB, or as a number of MiB.
  host    {"name": "h", "count": 400, "cpus": 64, "threadsPerCore": 2, "numaNodes": 2,
           "memory": "256GiB", "hugepages": {"1G": 64}, "reservedMemory": "4GiB",
           "isolatedCpus": "8-31", "reservedCpus": "0,32", "unschedulable": true,
           "labels": {…}, "networks": […],
           "failureDomains": {"rack": …, "powerFeed": …, "ringSegment": …},
           "devices": [{"address": "0000:3b:00.0", "class": "process-bus", "numaNode": 0}]}
          numaNodes may be a list instead: [{"id": 0, "cpus": "0-15,32-47",
           "smtSiblings": ["0,32", …], "memory": "128GiB", "hugepages": {…}, "distances": [10, 21]}]
  VM      {"name": "v", "vcpus": 4, "memory": "8GiB", "cpuPolicy": "shared|dedicated|realtime",
           "smt": "prefer|isolate|require", "ioThreads": 1, "hugepages": "none|2M|1G",
           "numa": "none|automatic|explicit", "cells": [{"vcpus": 2, "memory": "4GiB"}, …],
           "oneNodeRequired": true, "hostSelector": {…}, "networks": […],
           "devices": [{"class": …, "count": 1, "numa": "required|preferred|none"}],
           "rules": [{"group": "a", "kind": "together|apart|pair", "soft": true}],
           "antiAffinityGroup": "a", "pinnedHost": …, "preferredHosts": […], "ha": true,
           "priority": 0}
          {"release": "v"} gives back what v holds.
  policy  {"vcpuOvercommit": 1, "hostReservedMemory": 0, "vmOverhead": 0, "prefer": "pack|spread",
           "survive": "off|any-one-host|any-one-failure-domain"}; first ones are defaults

Placed one after the other, in the order of the file, as requests that come one by one. Exit code 1
when a VM is refused.`;

export function define(noun: Command, session: Session): void {
  noun
    .requiredOption('--hosts <file>', 'hosts of the cluster')
    .requiredOption('--vms <file>', 'VMs in the order in which they are asked for; - is stdin')
    .option('--policy <file>', 'how they are placed')
    .option('--batch <mode>', 'all VMs at once, in whatever order is best: all (or none), best-effort')
    .option('--moves', 'let one VM be moved to make room for one that would be refused')
    .option('--until-refused', 'stop at the first VM that is refused')
    .addHelpText('after', FILES);
  examples(noun, [
    'busbar schedule --hosts hosts.json --vms vms.json',
    'busbar schedule --hosts hosts.json --vms vms.json --policy n-1.json -o json',
    'busbar schedule --hosts hosts.json --vms - -o jsonl < requests.jsonl',
  ]);
  noun.action(async (options: ScheduleOptions) => (await import('./run.ts')).schedule(session, options));
}
