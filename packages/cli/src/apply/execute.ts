// SPDX-License-Identifier: Apache-2.0
/**
 * Makes the cluster agree with the documents, stage by stage: everything of a stage is begun, then waited for, so that
 * twenty VMs boot side by side. The first failure ends the apply after what was begun has ended; a second run goes on
 * from there, because each run compares anew.
 */
import type { Operation } from '@busbar/proto/gen/busbar/v1/operation';
import { Status } from 'nice-grpc';
import type { Api } from '../api/api.ts';
import { describeError, RpcError } from '../api/rpc-error.ts';
import { CliError, EXIT } from '../cli/exit.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import type { Plain } from '../manifest/check.ts';
import type { Manifest } from '../manifest/parse.ts';
import { waitForOperation } from '../operation/wait.ts';
import { isReference, type RefKind } from './compare.ts';
import { callStep, readExisting, readId, STAGES } from './kinds.ts';
import { type Plan, plan } from './plan.ts';

export interface ApplyResult {
  readonly kind: string;
  readonly name: string;
  readonly result: 'created' | 'updated' | 'unchanged';
  readonly changed: readonly string[];
  readonly restartNeeded: boolean;
  readonly operation?: Operation;
}

/** Somebody else changes the same resource at the same time: read and compare again this often. */
const MAX_REPLANS = 4;
const REPLAN_MS = 200;

export interface ApplyRun {
  readonly results: readonly ApplyResult[];
  readonly error: CliError | undefined;
}

export async function applyAll(
  session: Session,
  api: Api,
  manifests: readonly Manifest[],
  options: ChangeOptions,
  done: (result: ApplyResult) => void,
): Promise<ApplyRun> {
  const results: ApplyResult[] = [];
  const finish = (result: ApplyResult) => {
    results.push(result);
    done(result);
  };
  for (const stage of STAGES) {
    let error: CliError | undefined;
    const begun: ApplyResult[] = [];
    for (const manifest of manifests.filter(({ kind }) => kind === stage)) {
      try {
        session.doing = `apply ${manifest.kind.toLowerCase()} ${manifest.name}`;
        const result = await applyOne(session, api, manifest, options);
        if (result.operation === undefined) finish(result);
        else begun.push(result);
      } catch (thrown) {
        error = failure(session, thrown);
        break;
      }
    }
    for (const result of begun) {
      // VMs of this file may use its volumes: those are waited for also with --no-wait.
      if (options.wait === false && stage === 'Vm') {
        finish(result);
        continue;
      }
      try {
        session.doing = `apply ${result.kind.toLowerCase()} ${result.name}`;
        finish({ ...result, operation: await waitForOperation(session, api, result.operation as Operation) });
      } catch (thrown) {
        error ??= failure(session, thrown);
      }
    }
    if (error !== undefined) return { results, error };
  }
  return { results, error: undefined };
}

function failure(session: Session, thrown: unknown): CliError {
  session.signal.throwIfAborted();
  return describeError(thrown, session.doing);
}

async function applyOne(session: Session, api: Api, manifest: Manifest, options: ChangeOptions): Promise<ApplyResult> {
  for (let attempt = 1; ; attempt++) {
    const existing = await readExisting(api, manifest.kind, manifest.name);
    const ids = existing === undefined ? new Map<string, string>() : await resolveReferences(api, manifest);
    const planned = plan(manifest, existing, (kind, name) => ids.get(`${kind}/${name}`));
    if (planned.impossible.length > 0) throw impossible(manifest, planned);
    try {
      // The user's revision wins over the one just read: then a change by somebody else is an error, not a new plan.
      const revision = session.ifRevision(options) || (existing?.meta?.revision ?? 0n);
      return await carryOut(session, api, manifest, planned, revision, options);
    } catch (error) {
      const stale = error instanceof RpcError && error.code === Status.ABORTED;
      if (!stale || attempt >= MAX_REPLANS || options.ifRevision !== undefined) throw error;
      await api.pause(REPLAN_MS);
    }
  }
}

async function carryOut(
  session: Session,
  api: Api,
  manifest: Manifest,
  planned: Plan,
  revision: bigint,
  options: ChangeOptions,
): Promise<ApplyResult> {
  const { kind, name } = manifest;
  let operation: Operation | undefined;
  let restartNeeded = false;
  for (const step of planned.steps) {
    const requestId =
      options.requestId === undefined ? session.requestId({}) : `${options.requestId}:${kind}:${name}:${step.type}`;
    const validateOnly = options.dryRun === true;
    const answer = await callStep(api, { manifest, step, revision, validateOnly, requestId });
    if (!validateOnly) operation = answer.operation ?? operation;
    restartNeeded ||= answer.restartNeeded === true && step.type === 'update';
  }
  const creates = planned.steps.some(({ type }) => type === 'create');
  const result = creates ? 'created' : planned.steps.length > 0 ? 'updated' : 'unchanged';
  const base = { kind, name, result, changed: planned.changed, restartNeeded } as const;
  return operation === undefined ? base : { ...base, operation };
}

/** The ids of everything that the document names, to be compared with the ids that the cluster stores. */
export async function resolveReferences(api: Api, manifest: Manifest): Promise<ReadonlyMap<string, string>> {
  const wanted = new Map<string, { kind: RefKind; name: string }>();
  collect(manifest.spec, (kind, name) => wanted.set(`${kind}/${name}`, { kind, name }));
  const found = await Promise.all(
    [...wanted].map(async ([key, { kind, name }]) => [key, await readId(api, kind, name)] as const),
  );
  return new Map(found.filter((entry): entry is readonly [string, string] => entry[1] !== undefined));
}

function collect(value: Plain, add: (kind: RefKind, name: string) => void): void {
  if (typeof value !== 'object') return;
  for (const [field, inner] of Object.entries(value) as [string, Plain][]) {
    if (isReference(field) && typeof inner === 'string' && inner !== '') add(field, inner);
    else collect(inner, add);
  }
}

function impossible(manifest: Manifest, planned: Plan): CliError {
  const kind = manifest.kind.toLowerCase();
  return new CliError({
    exit: EXIT.conflict,
    reason: 'IMMUTABLE',
    what: `cannot apply ${kind} ${manifest.name}`,
    why: planned.impossible.map((path) => `${path} differs and cannot be changed on an existing ${kind}`),
    hint: `put the former value back, or delete the ${kind} and apply again`,
  });
}
