// SPDX-License-Identifier: Apache-2.0
import {
  CreateVolumeRequest,
  CreateVolumeResponse,
  DeleteVolumeRequest,
  DeleteVolumeResponse,
  ResizeVolumeRequest,
  ResizeVolumeResponse,
  VolumeServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/volume';
import type { Command } from 'commander';
import { usageError } from '../cli/exit.ts';
import { changeOptions, examples, getOptions, labelOption, listOptions, parseLabels } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { bytesFlag, nameArgument } from '../cli/values.ts';
import { runChange } from '../operation/change.ts';
import { type ListOptions, runGet, runList } from '../resource/resource.ts';
import { volumes } from './resource.ts';

interface CreateOptions extends ChangeOptions {
  readonly size?: string;
  readonly image?: string;
  readonly label?: readonly string[];
}

export function define(noun: Command, session: Session): void {
  examples(noun, [
    'busbar volume list',
    'busbar volume create archive --size 100GiB',
    'busbar volume resize archive 200GiB',
  ]);
  examples(listOptions(noun.command('list').alias('ls').description('All volumes.')), ['busbar volume list']).action(
    (options: ListOptions) => runList(session, volumes, {}, options),
  );
  examples(getOptions(noun.command('get <volume>').description('One volume, by name or id.')), [
    'busbar volume get archive -o yaml',
  ]).action((name: string, options: ListOptions) => runGet(session, volumes, name, options));
  const create = noun
    .command('create <name>')
    .description('Creates an empty volume or a clone of an image.')
    .option('--size <size>', "e.g. 10GiB (default with --image: the image's)")
    .option('--image <image>', 'image to clone');
  examples(changeOptions(labelOption(create)), [
    'busbar volume create archive --size 100GiB',
    'busbar volume create web-root --image debian --size 20GiB',
  ]).action((name: string, options: CreateOptions) => runCreate(session, name, options));
  examples(changeOptions(noun.command('resize <volume> <size>').description('Grows a volume.'), { revision: true }), [
    'busbar volume resize archive 200GiB',
  ]).action((name: string, size: string, options: ChangeOptions) => runResize(session, name, size, options));
  const remove = noun.command('delete <volume>').alias('rm').description('Deletes a volume that no VM uses.');
  examples(changeOptions(remove, { revision: true }), ['busbar volume delete archive']).action(
    (name: string, options: ChangeOptions) => runDelete(session, name, options),
  );
}

function runCreate(session: Session, name: string, options: CreateOptions): Promise<void> {
  if (options.size === undefined && options.image === undefined) {
    throw usageError(`volume ${name} has no size`, 'neither --size nor --image is given', 'add e.g. --size 10GiB');
  }
  const request = CreateVolumeRequest.create({
    name: nameArgument(name),
    labels: parseLabels(options.label ?? []),
    spec: {
      sizeBytes: options.size === undefined ? 0n : bytesFlag('--size', options.size),
      image: options.image ?? '',
    },
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  return runChange(session, options, {
    doing: `create volume ${name}`,
    target: `volume/${name}`,
    done: 'created',
    message: CreateVolumeResponse,
    send: (api) =>
      api.call(VolumeServiceDefinition, (client, callOptions) => client.createVolume(request, callOptions)),
    refresh: async (api, response) => ({
      ...response,
      volume: await volumes.get(api, response.volume?.meta?.id || name),
    }),
  });
}

function runResize(session: Session, volume: string, size: string, options: ChangeOptions): Promise<void> {
  const request = ResizeVolumeRequest.create({
    volume,
    sizeBytes: bytesFlag('the size', size),
    revision: session.ifRevision(options),
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  return runChange(session, options, {
    doing: `resize volume ${volume}`,
    target: `volume/${volume}`,
    done: `resized to ${size}`,
    message: ResizeVolumeResponse,
    send: (api) =>
      api.call(VolumeServiceDefinition, (client, callOptions) => client.resizeVolume(request, callOptions)),
  });
}

function runDelete(session: Session, volume: string, options: ChangeOptions): Promise<void> {
  const request = DeleteVolumeRequest.create({
    volume,
    revision: session.ifRevision(options),
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  return runChange(session, options, {
    doing: `delete volume ${volume}`,
    target: `volume/${volume}`,
    done: 'deleted',
    message: DeleteVolumeResponse,
    send: (api) =>
      api.call(VolumeServiceDefinition, (client, callOptions) => client.deleteVolume(request, callOptions)),
  });
}
