// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import {
  appendText,
  changeOptions,
  examples,
  getOptions,
  labelOption,
  listOptions,
  rowOptions,
} from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { type ListOptions, runGet, runList } from '../resource/resource.ts';
import type { CreateOptions } from './create.ts';
import { type VmFilter, vms } from './resource.ts';
import { type PowerOptions, runDelete, runPower } from './verbs.ts';

export function define(noun: Command, session: Session): void {
  examples(noun, [
    'busbar vm list',
    'busbar vm create web --vcpus 2 --memory 512MiB --image debian --network plant',
    'busbar vm stop web',
    'busbar vm console web',
  ]);
  defineReads(noun, session);
  defineCreate(noun, session);
  const power = (name: string, flags = {}) => changeOptions(noun.command(name), flags);
  examples(power('start <vm>').description('Starts a VM; from now on the cluster keeps it running.'), [
    'busbar vm start web',
    'busbar vm start web --dry-run',
  ]).action((vm: string, options: PowerOptions) => runPower(session, 'start', vm, options));
  examples(
    power('stop <vm>')
      .description('Asks the guest to shut down, and takes its power when it does not in time.')
      .option('--force', 'take its power at once')
      .option('--grace <duration>', "time for the guest to shut down (default: the VM's own)"),
    ['busbar vm stop web', 'busbar vm stop web --grace 2min', 'busbar vm stop web --force'],
  ).action((vm: string, options: PowerOptions) => runPower(session, 'stop', vm, options));
  examples(power('restart <vm>').description('Stops and starts a VM.').option('--force', 'take its power at once'), [
    'busbar vm restart web',
  ]).action((vm: string, options: PowerOptions) => runPower(session, 'restart', vm, options));
  examples(
    power('delete <vm>', { revision: true })
      .alias('rm')
      .description('Deletes a VM with the volumes that were created with it.')
      .option('--force', 'take its power at once'),
    ['busbar vm delete web', 'busbar vm delete web --if-revision 1042'],
  ).action((vm: string, options: PowerOptions) => runDelete(session, vm, options));
  defineSerial(noun, session);
}

function defineReads(noun: Command, session: Session): void {
  const host = (command: Command) => command.option('--host <host>', 'only VMs on this host');
  examples(host(listOptions(noun.command('list').alias('ls').description('All VMs.'))), [
    'busbar vm list',
    'busbar vm list --host host2',
    "busbar vm list --filter 'phase!=running,labels.plant=north' --sort -memory",
    'busbar vm list --columns name,host,spec.cpu.vcpus --no-headers',
    "busbar vm list -o json | jq -r '.vms[].meta.name'",
    'busbar vm list --watch',
  ]).action((options: ListOptions & VmFilter) => runList(session, vms, options, options));
  examples(getOptions(noun.command('get <vm>').description('One VM, by name or id.')), [
    'busbar vm get web',
    'busbar vm get web -o yaml',
  ]).action((name: string, options: ListOptions) => runGet(session, vms, name, options));
  const watch = noun.command('watch [vm]').description('Every change of all VMs, or of one, until interrupted.');
  examples(host(rowOptions(watch)), ['busbar vm watch', "busbar vm watch --filter 'host=host2'"]).action(
    (name: string | undefined, given: ListOptions & VmFilter) => {
      const options = { ...given, watch: true };
      return name === undefined ? runList(session, vms, options, options) : runGet(session, vms, name, options);
    },
  );
}

function defineCreate(noun: Command, session: Session): void {
  const create = noun
    .command('create [name]')
    .description('Creates a VM from flags or from a file, and starts it.')
    .option('-f, --file <file>', 'YAML file with one Vm document, "-" for stdin; no other flags then')
    .option('--vcpus <number>', 'virtual CPUs')
    .option('--memory <size>', 'e.g. 512MiB, 4GiB')
    .option('--image <image>', 'image to clone the boot disk from')
    .option('--disk-size <size>', "size of the boot disk (default: the image's)")
    .option('--data-disk <size>', 'a further, empty disk (repeatable)', appendText)
    .option('--network <network>', 'network to plug a NIC into (repeatable)', appendText)
    .option('--firmware <firmware>', 'bios or uefi')
    .option('--machine-type <type>', 'q35 or pc')
    .option('--cpu-policy <policy>', 'shared, dedicated or realtime')
    .option('--hugepages <size>', 'none, 2m or 1g')
    .option('--user-data <file>', 'cloud-init user-data')
    .option('--network-config <file>', 'cloud-init network-config, version 2')
    .option('--ha', 'restart it on another host when its host dies')
    .option('--stopped', 'do not start it');
  examples(changeOptions(labelOption(create)), [
    'busbar vm create web --vcpus 2 --memory 512MiB --image debian --network plant',
    'busbar vm create web --vcpus 1 --memory 1GiB --image debian --data-disk 20GiB --dry-run',
    'busbar vm create -f guest-vm.yaml',
  ]).action(async (name: string | undefined, options: CreateOptions) => {
    const { runCreate } = await import('./create.ts');
    await runCreate(session, name, options);
  });
}

function defineSerial(noun: Command, session: Session): void {
  examples(noun.command('console <vm>').description('The serial console, interactive. Ctrl-] ends it.'), [
    'busbar vm console web',
    "echo 'uptime' | busbar vm console web",
  ]).action(async (vm: string) => {
    const { runConsole } = await import('./console.ts');
    await runConsole(session, vm);
  });
  examples(
    noun
      .command('log <vm>')
      .alias('logs')
      .description('What the guest printed on its serial console.')
      .option('-f, --follow', 'go on until interrupted')
      .option('--tail <size>', 'how much to begin with (default: 64KiB)'),
    ['busbar vm log web', 'busbar vm log web --follow', 'busbar vm log web --tail 1MiB > web.log'],
  ).action(async (vm: string, options: { follow?: boolean; tail?: string }) => {
    const { runLog } = await import('./log.ts');
    await runLog(session, vm, options);
  });
}
