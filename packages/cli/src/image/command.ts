// SPDX-License-Identifier: Apache-2.0
import { DeleteImageRequest, DeleteImageResponse, ImageServiceDefinition } from '@busbar/proto/gen/busbar/v1/image';
import { type Command, Option } from 'commander';
import { changeOptions, examples, getOptions, labelOption, listOptions } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { runChange } from '../operation/change.ts';
import { type ListOptions, runGet, runList } from '../resource/resource.ts';
import type { ImportOptions } from './import.ts';
import { images } from './resource.ts';

export function define(noun: Command, session: Session): void {
  examples(noun, ['busbar image import debian debian-13.qcow2', 'busbar image list', 'busbar image delete debian']);
  const load = noun
    .command('import <name> <file>')
    .description('Streams a raw or qcow2 file into the cluster.')
    .addOption(
      new Option('--format <format>', 'format of the file, if not the one seen from its first bytes').choices([
        'raw',
        'qcow2',
      ]),
    );
  examples(changeOptions(labelOption(load), { waits: false }), [
    'busbar image import debian debian-13.qcow2',
    'busbar image import relay relay.img --format raw --label vendor=acme',
  ]).action(async (name: string, file: string, options: ImportOptions) => {
    const { runImport } = await import('./import.ts');
    await runImport(session, name, file, options);
  });
  examples(listOptions(noun.command('list').alias('ls').description('All images.')), ['busbar image list']).action(
    (options: ListOptions) => runList(session, images, {}, options),
  );
  examples(getOptions(noun.command('get <image>').description('One image, by name or id.')), [
    'busbar image get debian -o yaml',
  ]).action((name: string, options: ListOptions) => runGet(session, images, name, options));
  const remove = noun
    .command('delete <image>')
    .alias('rm')
    .description('Deletes an image that no volume was cloned from.');
  examples(changeOptions(remove, { revision: true }), ['busbar image delete debian']).action(
    (name: string, options: ChangeOptions) => runDelete(session, name, options),
  );
}

function runDelete(session: Session, image: string, options: ChangeOptions): Promise<void> {
  const request = DeleteImageRequest.create({
    image,
    revision: session.ifRevision(options),
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  return runChange(session, options, {
    doing: `delete image ${image}`,
    target: `image/${image}`,
    done: 'deleted',
    message: DeleteImageResponse,
    send: (api) => api.call(ImageServiceDefinition, (client, callOptions) => client.deleteImage(request, callOptions)),
  });
}
