// SPDX-License-Identifier: Apache-2.0
// Runs the guest in a plain QEMU, without libvirt: for the image's own tests and for a look at it by hand.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const OVMF_CODE = '/usr/share/OVMF/OVMF_CODE_4M.fd';
export const OVMF_VARIABLES = '/usr/share/OVMF/OVMF_VARS_4M.fd';

const POLL_MS = 50;

export type GuestMachineOptions = {
  /** An existing folder for sockets. */
  folder: string;
  machine: 'pc' | 'q35';
  /** `-drive` and `-device` arguments of the disks. */
  disks: readonly string[];
  /** Path of a writable copy of OVMF_VARIABLES: boots by UEFI. */
  uefiVariables?: string;
  /** The guest's address if it is not the one that QEMU's DHCP gives. */
  address?: string;
};

export type GuestMachine = {
  /** All that came over the serial console so far. */
  serial(): string;
  /** Resolves once the console has matched, from `after` on. */
  waitForSerial(pattern: RegExp, deadlineMs: number, after?: number): Promise<string>;
  type(text: string): void;
  /** Body of GET /counter; undefined while nothing answers. */
  counter(): Promise<unknown>;
  /** Sends one command to the guest agent and returns its answer; repeats it until the agent listens. */
  agent(command: string, deadlineMs: number): Promise<unknown>;
  powerButton(): Promise<void>;
  waitForExit(deadlineMs: number): Promise<number | null>;
  /** SIGKILL, as when the host dies. */
  kill(): Promise<void>;
};

export async function startGuestMachine(options: GuestMachineOptions): Promise<GuestMachine> {
  const port = await freePort();
  const agentSocket = join(options.folder, 'agent.sock');
  const qmpSocket = join(options.folder, 'qmp.sock');
  const firmware =
    options.uefiVariables === undefined
      ? []
      : [
          ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${OVMF_CODE}`],
          ...['-drive', `if=pflash,unit=1,format=raw,file=${options.uefiVariables}`],
        ];
  // TCG: has to run on build machines without virtualisation.
  const child = spawn('qemu-system-x86_64', [
    ...['-accel', 'tcg', '-m', '256', '-smp', '1', '-machine', options.machine],
    ...['-nodefaults', '-display', 'none', '-vga', 'std', '-serial', 'stdio'],
    ...['-qmp', `unix:${qmpSocket},server=on,wait=off`],
    ...['-device', 'virtio-serial', '-chardev', `socket,id=agent,path=${agentSocket},server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
    ...['-nic', `user,model=virtio,mac=52:54:00:12:34:56,hostfwd=tcp:127.0.0.1:${port}-${options.address ?? ''}:80`],
    ...firmware,
    ...options.disks,
  ]);
  const exit = once(child, 'exit');
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
  });
  child.stderr.on('data', (chunk: Buffer) => {
    text += `[qemu] ${chunk.toString()}`;
  });
  // Typing into a machine that has just died is not an error of the test.
  child.stdin.on('error', () => undefined);

  const describe = (): string => `; console:\n${text}`;
  return {
    serial: () => text,
    waitForSerial: (pattern, deadlineMs, after = 0) =>
      eventually(`${pattern} on the console`, deadlineMs, describe, async () => {
        if (ended(child) && !pattern.test(text.slice(after))) throw new Error(`QEMU ended early${describe()}`);
        return pattern.exec(text.slice(after))?.[0];
      }),
    type: (line) => {
      child.stdin.write(line);
    },
    counter: () => getJson(`http://127.0.0.1:${port}/counter`),
    agent: (command, deadlineMs) =>
      eventually(`guest agent ${command}`, deadlineMs, describe, () => agentCall(agentSocket, command)),
    powerButton: () => powerButton(qmpSocket),
    waitForExit: async (deadlineMs) => {
      await eventually('QEMU to end', deadlineMs, describe, async () => (ended(child) ? true : undefined));
      return child.exitCode;
    },
    kill: async () => {
      if (ended(child)) return;
      child.kill('SIGKILL');
      await exit;
    },
  };
}

function ended(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** Asks again until there is an answer. */
export async function eventually<T>(
  what: string,
  deadlineMs: number,
  describe: () => string,
  attempt: () => Promise<T | undefined>,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const answer = await attempt();
    if (answer !== undefined) return answer;
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms for ${what}${describe()}`);
    await delay(POLL_MS);
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function getJson(url: string): Promise<unknown> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    return response.ok ? await response.json() : undefined;
  } catch {
    // Not up yet.
    return undefined;
  }
}

async function connect(path: string): Promise<Socket> {
  await eventually(
    path,
    5_000,
    () => '',
    async () =>
      access(path).then(
        () => true,
        () => undefined,
      ),
  );
  const socket = createConnection(path);
  await once(socket, 'connect');
  return socket;
}

async function agentCall(path: string, command: string): Promise<unknown> {
  const socket = await connect(path);
  try {
    return await conversation(socket, command, 1_000);
  } finally {
    socket.destroy();
  }
}

async function powerButton(path: string): Promise<void> {
  const socket = await connect(path);
  try {
    await conversation(socket, 'qmp_capabilities', 2_000);
    await conversation(socket, 'system_powerdown', 2_000);
  } finally {
    socket.destroy();
  }
}

/** Sends a command and returns what its answer says under "return"; undefined when none comes in time. */
async function conversation(socket: Socket, command: string, deadlineMs: number): Promise<unknown> {
  socket.write(`${JSON.stringify({ execute: command })}\n`);
  let text = '';
  try {
    for await (const [chunk] of onData(socket, deadlineMs)) {
      text += String(chunk);
      for (const line of text.split('\n').slice(0, -1)) {
        const message: unknown = JSON.parse(line);
        if (typeof message === 'object' && message !== null && 'return' in message) return message.return;
      }
    }
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
  }
  return undefined;
}

async function* onData(socket: Socket, deadlineMs: number): AsyncGenerator<unknown[]> {
  const signal = AbortSignal.timeout(deadlineMs);
  for (;;) yield await once(socket, 'data', { signal });
}
