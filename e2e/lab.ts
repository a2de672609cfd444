// SPDX-License-Identifier: Apache-2.0
import { type CommandResult, busbar as run } from '@busbar/deploy/demo/busbar';
import { hostExec } from '@busbar/deploy/lab/lab';

export { eventually, guestCounter } from '@busbar/deploy/demo/guest-http';

/** The lab that all e2e tests share; each test leaves it healthy. */
export const LAB = 'test-e2e';
export const HOSTS = ['host1', 'host2', 'host3'] as const;

export function busbar(
  args: readonly string[],
  options: { readonly input?: string; readonly timeoutMs?: number } = {},
): Promise<CommandResult> {
  return run(LAB, args, options);
}

export async function busbarOk(args: readonly string[], options: { readonly input?: string } = {}): Promise<string> {
  const result = await busbar(args, options);
  if (result.code !== 0) throw new Error(`busbar ${args.join(' ')} ended with ${result.code}:\n${result.stderr}`);
  return result.stdout;
}

export async function json<T>(args: readonly string[]): Promise<T> {
  return JSON.parse(await busbarOk([...args, '-o', 'json'])) as T;
}

/** Runs a program inside a host; its exit code does not matter. */
export async function inside(host: string, ...argv: string[]): Promise<string> {
  return (await hostExec(LAB, host, argv, { mayFail: true })).stdout.trim();
}

export interface VmJson {
  readonly meta: { readonly id: string; readonly name: string; readonly revision: string };
  readonly spec: { readonly runPolicy: string };
  readonly status: {
    readonly phase: string;
    /** Absent while no host has it: proto3 JSON leaves out what is empty. */
    readonly host: string;
    readonly epoch: string;
    readonly message: string;
    readonly disks: readonly {
      readonly name: string;
      readonly volume: { readonly id: string; readonly name: string };
    }[];
  };
}

export function getVm(name: string): Promise<VmJson> {
  return json<VmJson>(['vm', 'get', name]);
}

/** The demo guest as a document for `apply`. */
export function guestYaml(options: {
  readonly name: string;
  readonly address?: string;
  readonly firmware?: 'bios' | 'uefi';
  readonly pinnedHost?: string;
  readonly runPolicy?: 'running' | 'stopped';
  /** In its user data, as a comment that the guest does not read. */
  readonly password?: string;
}): string {
  const nics = options.address === undefined ? '' : '\n  nics:\n    - {name: lan, network: plant}';
  const network =
    options.address === undefined
      ? ''
      : `\n    networkConfig: |\n      version: 2\n      ethernets:\n        eth0:\n          addresses: [${options.address}/24]`;
  const password = options.password === undefined ? '' : `\n      # password: ${options.password}`;
  const placement = options.pinnedHost === undefined ? '' : `\n  placement: {pinnedHost: ${options.pinnedHost}}`;
  return `apiVersion: busbar.v1
kind: Vm
name: ${options.name}
spec:
  runPolicy: ${options.runPolicy ?? 'running'}
  cpu: {vcpus: 1}
  memoryBytes: 256MiB
  firmware: ${options.firmware ?? 'bios'}
  disks:
    - {name: boot, image: busbar-guest}
    - {name: data, sizeBytes: 64MiB}${nics}${placement}
  cloudInit:
    userData: |
      #cloud-config
      hostname: ${options.name}${password}${network}
`;
}

/** The pid of the VM's QEMU inside its host; empty when there is none. */
export async function qemuPid(host: string, vm: string): Promise<string> {
  return inside(host, 'pgrep', '-f', `qemu-system.*guest=${vm},`);
}
