// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { usageError } from '../cli/exit.ts';
import { appendText, changeOptions, examples } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { readInput } from '../cli/values.ts';

interface ApplyOptions extends ChangeOptions {
  readonly file?: readonly string[];
}

const FORMAT = `
A file holds one or more documents, parted by "---":
  apiVersion: busbar.v1
  kind: Vm                  # or Volume, Network
  name: scada-1
  labels: {plant: north}
  spec:
    cpu: {vcpus: 2}
    memoryBytes: 2GiB       # KiB, MiB, GiB, TiB or kB, MB, GB, TB, or plain bytes
    disks: [{name: boot, image: debian, sizeBytes: 10GiB}]
    nics: [{name: nic0, network: plant}]
Fields that a document leaves out are left as they are; lists and labels are taken as a whole.`;

export function define(noun: Command, session: Session): void {
  noun.option('-f, --file <file>', 'YAML file, "-" for stdin (repeatable)', appendText);
  examples(changeOptions(noun, { revision: true }), [
    'busbar apply -f network.yaml -f guest-vm.yaml',
    'busbar apply -f guest-vm.yaml --dry-run',
    'generate-vms | busbar apply -f -',
  ]).addHelpText('after', FORMAT);
  noun.action(async (options: ApplyOptions) => {
    const files = options.file ?? [];
    if (files.length === 0) throw usageError('there is nothing to apply', '-f is missing', 'busbar apply -f FILE');
    // Everything is read and checked before anything is sent.
    const { parseManifests } = await import('../manifest/parse.ts');
    const manifests = [];
    for (const file of files) manifests.push(...parseManifests(await readInput(session.io, file), file));
    if (options.ifRevision !== undefined && manifests.length !== 1) {
      throw usageError(
        '--if-revision needs one document',
        `${manifests.length} are given, and each resource has a revision of its own`,
        'apply them one by one',
      );
    }
    const { runApply } = await import('./run.ts');
    await runApply(session, manifests, options);
  });
}
