// SPDX-License-Identifier: Apache-2.0
// npm run demo: a cluster on this machine and a real VM on it, one line a step.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { buildGuestImage } from '../guest/build.ts';
import { hostExec, labUp } from '../lab/lab.ts';
import { busbar, busbarOk } from './busbar.ts';
import { eventually, guestCounter } from './guest-http.ts';

const LAB = 'lab';
const VM = 'guest-1';
const root = fileURLToPath(new URL('../../', import.meta.url));
const started = performance.now();

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

async function step<T>(what: string, work: () => Promise<T>, tell: (result: T) => string): Promise<T> {
  const began = performance.now();
  if (process.stderr.isTTY) process.stderr.write(`      … ${what}\r`);
  try {
    const result = await work();
    console.log(`[${seconds(performance.now() - began).padStart(7)}] ${tell(result)}`);
    return result;
  } catch (error) {
    console.log(`[${seconds(performance.now() - began).padStart(7)}] FAILED: ${what}`);
    throw error;
  }
}

interface VmJson {
  readonly status: { readonly phase: string; readonly host: string; readonly epoch: string };
}

async function vm(): Promise<VmJson> {
  return JSON.parse(await busbarOk(LAB, ['vm', 'get', VM, '-o', 'json'])) as VmJson;
}

async function leader(): Promise<string> {
  const result = await busbar(LAB, ['cluster', 'get', '-o', 'json']);
  if (result.code !== 0) return '';
  const answer = JSON.parse(result.stdout) as { cluster?: { leader?: string }; leader?: string };
  return answer.cluster?.leader ?? answer.leader ?? '';
}

async function qemuPid(host: string): Promise<string> {
  const { stdout } = await hostExec(LAB, host, ['pgrep', '-f', 'qemu-system.*guest='], { mayFail: true });
  return stdout.trim();
}

async function main(): Promise<void> {
  const image = await step(
    'build the guest image',
    () => buildGuestImage(),
    (built) => `guest image of ${Math.round(built.sizeBytes / 1024 ** 2)} MiB built from Debian packages`,
  );
  const plan = await step(
    'bring the lab up',
    () => labUp({ name: LAB }),
    (up) => `lab up: ${up.hosts.length} hosts with libvirt, etcd, Ceph, NATS, controller and agent`,
  );
  // The example's addresses are those of the first lab on a machine.
  const subnet = `10.78.${plan.spec.index}.`;
  const address = `${subnet}21`;
  const example = readFileSync(`${root}examples/guest-vm.yaml`, 'utf8').replaceAll('10.78.0.', subnet);

  await step(
    'wait for the hosts',
    () =>
      eventually('three hosts ready', 60_000, async () => {
        const result = await busbar(LAB, ['host', 'list']);
        return (result.stdout.match(/\bready\b/g) ?? []).length === plan.hosts.length ? result.stdout : null;
      }),
    (table) => `hosts are ready\n${indent(table)}`,
  );
  await step(
    'import the guest image',
    async () => {
      const known = await busbar(LAB, ['image', 'get', 'busbar-guest']);
      return known.code === 0
        ? 'was there already'
        : await busbarOk(LAB, ['image', 'import', 'busbar-guest', image.path]).then(
            () => 'streamed to the API into Ceph',
          );
    },
    (how) => `image busbar-guest ${how}`,
  );
  await step(
    'create the network',
    () => busbarOk(LAB, ['apply', '-f', `${root}examples/network.yaml`]),
    (said) => said.trim(),
  );
  await step(
    'create the VM from examples/guest-vm.yaml',
    () => busbarOk(LAB, ['apply', '-f', '-'], { input: example }),
    (said) => `${said.trim()} (from examples/guest-vm.yaml)`,
  );
  await step(
    'watch it boot',
    () =>
      eventually('the guest to boot', 120_000, async () => {
        const log = (await busbar(LAB, ['vm', 'log', VM])).stdout;
        return log.includes('busbar-guest: ready') ? log : null;
      }),
    (log) =>
      `it booted from its RBD disk\n${indent(
        log
          .split('\n')
          .filter((line) => line.startsWith('busbar-guest:'))
          .join('\n'),
      )}`,
  );
  const first = await step(
    'ask the guest',
    () => eventually('the guest to answer', 60_000, () => guestCounter(address)),
    (answer) => `http://${address}/counter: ${answer.counter}`,
  );
  const second = await step(
    'see the counter rise',
    () =>
      eventually('the counter to rise', 30_000, async () => {
        const now = await guestCounter(address);
        return now !== null && now.counter >= first.counter + 5 ? now : null;
      }),
    (answer) => `counter rose to ${answer.counter}: every value is on disk before it is told`,
  );
  await step(
    'stop the VM',
    () => busbarOk(LAB, ['vm', 'stop', VM]),
    () => 'stopped: the guest was asked and shut down',
  );
  await step(
    'start it again',
    () => busbarOk(LAB, ['vm', 'start', VM]),
    () => 'started',
  );
  await step(
    'see the counter go on',
    () => eventually('the guest to answer again', 120_000, () => guestCounter(address)),
    (answer) => {
      if (answer.counter < second.counter)
        throw new Error(`the counter fell from ${second.counter} to ${answer.counter}: an acknowledged write was lost`);
      return `counter went on: ${second.counter} before, ${answer.counter} now`;
    },
  );
  const before = await vm();
  const pid = await qemuPid(before.status.host);
  await step(
    'kill the agent',
    async () => {
      await hostExec(LAB, before.status.host, ['pkill', '-9', '-f', 'agent/src/main.ts'], { mayFail: true });
      return eventually('the agent to be back', 60_000, async () => {
        const [now, counter] = [await vm(), await guestCounter(address)];
        return now.status.phase.endsWith('RUNNING') && counter !== null ? { now, counter } : null;
      });
    },
    ({ now, counter }) =>
      `agent of ${before.status.host} killed -9: guest untouched (epoch ${before.status.epoch} -> ${now.status.epoch}, QEMU ${pid}, counter ${counter.counter})`,
  );
  if ((await qemuPid(before.status.host)) !== pid)
    throw new Error('QEMU is another process than before the agent was killed');
  const was = await eventually('a leader', 30_000, async () => (await leader()) || null);
  await step(
    'kill the leader',
    async () => {
      await hostExec(LAB, was, ['pkill', '-9', '-f', 'controller/src/main.ts'], { mayFail: true });
      const answered = performance.now();
      await eventually('the API to answer', 30_000, async () =>
        (await busbar(LAB, ['vm', 'list'])).code === 0 ? true : null,
      );
      const answerMs = performance.now() - answered;
      const next = await eventually('another leader', 60_000, async () => {
        const now = await leader();
        return now !== '' && now !== was ? now : null;
      });
      return { next, answerMs };
    },
    ({ next, answerMs }) => `leader on ${was} killed -9: the API answered after ${seconds(answerMs)}, ${next} leads`,
  );
  console.log(`
Done in ${seconds(performance.now() - started)}. Look around:
  npx busbar vm list                            npx busbar vm console ${VM}     (Ctrl-] ends it)
  npx busbar host list                          curl http://${address}/counter
  npm run lab -- status                         npm run lab -- exec host1 -- virsh list
  npm run lab -- kill host3                     npm run lab -- revive host3
Tear down:
  npm run lab -- down`);
}

function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `            ${line}`)
    .join('\n');
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  console.error('the lab is left as it is: "npm run lab -- status" shows it, "npm run lab -- down" takes it away');
  process.exit(1);
});
