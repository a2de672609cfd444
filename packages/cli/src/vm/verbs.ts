// SPDX-License-Identifier: Apache-2.0
/** start, stop, restart and delete. */

import { unreachable } from '@busbar/core/assert';
import {
  DeleteVmRequest,
  DeleteVmResponse,
  RestartVmRequest,
  RestartVmResponse,
  StartVmRequest,
  StartVmResponse,
  StopVmRequest,
  StopVmResponse,
  VmServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/vm';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { msFlag } from '../cli/values.ts';
import { runChange } from '../operation/change.ts';
import { renderPlacement } from './preview.ts';

export interface PowerOptions extends ChangeOptions {
  readonly force?: boolean;
  readonly grace?: string;
}

export function runPower(
  session: Session,
  verb: 'start' | 'stop' | 'restart',
  vm: string,
  options: PowerOptions,
): Promise<void> {
  const common = { vm, validateOnly: options.dryRun === true, requestId: session.requestId(options) };
  const force = options.force === true;
  const texts = { doing: `${verb} VM ${vm}`, target: `vm/${vm}` };
  switch (verb) {
    case 'start': {
      const request = StartVmRequest.create(common);
      return runChange(session, options, {
        ...texts,
        done: 'started',
        message: StartVmResponse,
        preview: (response) => renderPlacement(response.placement),
        send: (api) => api.call(VmServiceDefinition, (client, callOptions) => client.startVm(request, callOptions)),
      });
    }
    case 'stop': {
      const timeoutMs = options.grace === undefined ? 0 : msFlag('--grace', options.grace);
      const request = StopVmRequest.create({ ...common, force, timeoutMs });
      return runChange(session, options, {
        ...texts,
        done: 'stopped',
        message: StopVmResponse,
        send: (api) => api.call(VmServiceDefinition, (client, callOptions) => client.stopVm(request, callOptions)),
      });
    }
    case 'restart': {
      const request = RestartVmRequest.create({ ...common, force });
      return runChange(session, options, {
        ...texts,
        done: 'restarted',
        message: RestartVmResponse,
        send: (api) => api.call(VmServiceDefinition, (client, callOptions) => client.restartVm(request, callOptions)),
      });
    }
    default:
      return unreachable(verb);
  }
}

export function runDelete(session: Session, vm: string, options: PowerOptions): Promise<void> {
  const request = DeleteVmRequest.create({
    vm,
    force: options.force === true,
    revision: session.ifRevision(options),
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  return runChange(session, options, {
    doing: `delete VM ${vm}`,
    target: `vm/${vm}`,
    done: 'deleted',
    message: DeleteVmResponse,
    send: (api) => api.call(VmServiceDefinition, (client, callOptions) => client.deleteVm(request, callOptions)),
  });
}
