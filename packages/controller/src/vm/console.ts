// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import { AttachKind } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type {
  GetVmLogRequest,
  GetVmLogResponse,
  OpenConsoleRequest,
  OpenConsoleResponse,
} from '@busbar/proto/gen/busbar/v1/vm';
import type { Api, Call } from '../api/call.ts';
import { find } from '../api/refusals.ts';
import { invalid } from '../api/validation.ts';
import { firstMessage } from '../session/first-message.ts';
import { phaseWord } from './state.ts';

const LOG_TAIL_DEFAULT = 65_536n;

export async function* openConsole(
  api: Api,
  incoming: AsyncIterable<OpenConsoleRequest>,
  call: Call,
): AsyncIterable<OpenConsoleResponse> {
  const iterator = incoming[Symbol.asyncIterator]();
  const first = await firstMessage(api.clock, iterator, 'the name of the VM');
  const vm = first.done ? '' : first.value.vm;
  if (vm === '') throw invalid([{ field: 'vm', problem: 'is missing', expected: 'the VM, in the first message' }]);
  const { id, host } = await hostOf(api, vm);
  async function* input(): AsyncIterable<Uint8Array> {
    if (!first.done && first.value.input.length > 0) yield first.value.input;
    for await (const message of { [Symbol.asyncIterator]: () => iterator }) {
      if (message.input.length > 0) yield message.input;
    }
  }
  const output = await api.sessions.attach(
    host,
    { vmId: id, kind: AttachKind.CONSOLE, tailBytes: 0n, follow: true, ...whoAsks(call) },
    input(),
    call.signal,
  );
  call.audit.accepted();
  yield { output: Buffer.alloc(0) };
  for await (const chunk of output) yield { output: Buffer.from(chunk) };
}

export async function* readLog(api: Api, request: GetVmLogRequest, call: Call): AsyncIterable<GetVmLogResponse> {
  const { id, host } = await hostOf(api, request.vm);
  const tailBytes = request.tailBytes === 0n ? LOG_TAIL_DEFAULT : request.tailBytes;
  const output = await api.sessions.attach(
    host,
    { vmId: id, kind: AttachKind.LOG, tailBytes, follow: request.follow, ...whoAsks(call) },
    nothing(),
    call.signal,
  );
  for await (const chunk of output) yield { output: Buffer.from(chunk) };
}

/** The host's places are by caller and role, whichever controller they come through. */
function whoAsks({ caller }: Call): { readonly caller: string; readonly role: string } {
  return { caller: caller.name, role: caller.role ?? '' };
}

async function* nothing(): AsyncIterable<Uint8Array> {}

async function hostOf(api: Api, vm: string): Promise<{ readonly id: string; readonly host: string }> {
  await api.view.fresh();
  const entry = find(api.view.tables.vm, vm);
  const status = api.view.tables['vm-status'].get(entry.id)?.record;
  if (status === undefined || status.host === '') {
    const phase = status === undefined ? 'being created' : phaseWord(status.phase);
    // Of a VM that did not start: QEMU's own words, which whoever asks for its log is after.
    const why = status === undefined || status.message === '' ? '' : ` (${status.message})`;
    throw new BusbarError({
      kind: 'precondition',
      reason: 'VM_NOT_RUNNING',
      message: `VM "${entry.record.meta?.name}" is ${phase}${why}: it has no console and no log now`,
      hint: `start it: busbar vm start ${entry.record.meta?.name}`,
    });
  }
  return { id: entry.id, host: status.host };
}
