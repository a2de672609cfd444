// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { BusbarError } from '@busbar/core/errors';
import { spkiPin } from '@busbar/pki/csr';
import { CERTIFICATE_DAYS } from '@busbar/pki/found';
import { isIdentityName } from '@busbar/pki/identity';
import { encodeJoinToken, JOIN_SECRET_BYTES, secretDigest, secretMatches } from '@busbar/pki/join-token';
import { purposesOf } from '@busbar/pki/purpose';
import type { JoinTokenRecord } from '@busbar/proto/gen/busbar/store/v1/pki';
import { CertificatePurpose } from '@busbar/proto/gen/busbar/v1/certificate';
import { HostRole } from '@busbar/proto/gen/busbar/v1/host';
import {
  CreateJoinTokenRequest,
  DeleteJoinTokenRequest,
  JoinRequest,
  type JoinResponse,
  type JoinServiceDefinition,
  type JoinTokenServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/join';
import { z } from 'zod';
import type { Api, Call, Caller } from '../api/call.ts';
import { contentOf, mutate } from '../api/mutate.ts';
import { page, pageFields } from '../api/pages.ts';
import type { Service } from '../api/service.ts';
import { invalid, requestId } from '../api/validation.ts';
import { list, text } from '../bounds/schema.ts';
import { authorityPem, sign } from '../certificate/authority.ts';
import { certificateOf } from '../certificate/plan.ts';
import { newCertificate, presentPurpose } from '../certificate/present.ts';
import { csrPem } from '../certificate/rpc.ts';
import {
  ADDRESS_RULE,
  ADDRESSES_MAX,
  addressesDiffer,
  addressInUse,
  canonicalAddress,
  takenAddress,
} from './addresses.ts';
import { joinGuard } from './guard.ts';
import { formerUse, NEW_TOKEN, planCreate, planDelete, planRedeem, tokenOf, unknownToken } from './plan.ts';

const TTL_DEFAULT_S = 3_600;
const TTL_RULE = '60 to 604800 seconds (a week)';
/** After its end a token is remembered this long, so that whoever comes late is told so. */
const REMEMBERED_MS = 86_400_000;
/** Port of the JSON edge on every controller. */
export const EDGE_PORT = 7801;
const HOST_NAME = 'a host name: lower-case letters, digits and hyphens (DNS label)';
const ROLES = [HostRole.UNSPECIFIED, HostRole.HYPERVISOR, HostRole.WITNESS] as const;

const ADDRESSES_RULE = `1 to ${ADDRESSES_MAX} IP addresses, the management address first`;
/** The longest text form of an IPv6 address has 45 characters (INET6_ADDRSTRLEN), a zone comes on top. */
const address = text(64, ADDRESS_RULE).refine((value) => canonicalAddress(value) !== null, ADDRESS_RULE);

export function joinTokenService(api: Api): Service<typeof JoinTokenServiceDefinition> {
  return {
    createJoinToken: {
      access: 'administer',
      schema: z.object({
        host: text(63, HOST_NAME).refine(isIdentityName, HOST_NAME),
        role: z.enum(ROLES, ROLES.join(', ')),
        voter: z.boolean(),
        addresses: list(address, 1, ADDRESSES_MAX, ADDRESSES_RULE).refine(
          (all) => new Set(all.map(canonicalAddress)).size === all.length,
          'each address once',
        ),
        ttlSeconds: z
          .number(TTL_RULE)
          .int(TTL_RULE)
          .max(604_800, TTL_RULE)
          .refine((value) => value === 0 || value >= 60, TTL_RULE),
        validateOnly: z.boolean(),
        requestId,
      }),
      handle: (request, call) => createToken(api, request, call),
    },
    listJoinTokens: {
      access: 'read',
      schema: z.object(pageFields),
      async handle(request) {
        const revision = await api.view.fresh();
        const tokens = api.view.tables['join-token'].sorted().map((entry) => tokenOf(entry.record));
        const { items, nextPageToken } = page(tokens, (token) => token.id, request);
        return { tokens: [...items], nextPageToken, revision };
      },
    },
    deleteJoinToken: {
      access: 'administer',
      schema: z.object({ id: z.uuid('the id of a token'), validateOnly: z.boolean(), requestId }),
      handle: (request, call) =>
        mutate(api, call, {
          method: 'DeleteJoinToken',
          whileBehind: true,
          content: contentOf(DeleteJoinTokenRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planDelete(api.view, request.id),
          preview: () => ({ id: request.id }),
          respond: () => ({ id: request.id }),
        }),
    },
  };
}

async function createToken(api: Api, request: CreateJoinTokenRequest, call: Call) {
  await api.view.fresh();
  const pin = spkiPin(authorityPem(api, 'ca'));
  const id = api.random.uuid();
  const createTime = api.clock.wallTime();
  const ttlMs = (request.ttlSeconds || TTL_DEFAULT_S) * 1000;
  const lease = request.validateOnly ? '' : (await api.store.grantLease(ttlMs + REMEMBERED_MS)).id;
  const record: JoinTokenRecord = {
    token: {
      id,
      host: request.host,
      role: request.role === HostRole.UNSPECIFIED ? HostRole.HYPERVISOR : request.role,
      voter: request.voter,
      createdBy: call.caller.name,
      createTime,
      expireTime: new Date(createTime.getTime() + ttlMs),
      useTime: undefined,
      addresses: request.addresses.flatMap((each) => canonicalAddress(each) ?? []),
    },
    secretDigest: secretDigest(secretOf(api, id)),
    lease,
    requestDigest: '',
    serials: [],
  };
  const endpoints = api.controllers.map(({ address }) => address.replace(/:\d+$/, `:${EDGE_PORT}`));
  return mutate(api, call, {
    method: 'CreateJoinToken',
    whileBehind: true,
    content: contentOf(CreateJoinTokenRequest, request),
    requestId: request.requestId,
    validateOnly: request.validateOnly,
    plan: () => planCreate(api.view, api.controllers, record, api.clock.wallTime()),
    preview: (plan) => ({ token: plan.extra, text: '' }),
    respond: ({ resourceId }) => ({
      token: api.view.tables['join-token'].get(resourceId)?.record.token,
      text: encodeJoinToken({ endpoints, pin, id: resourceId, secret: secretOf(api, resourceId) }),
    }),
  });
}

/**
 * The secret of a token: a keyed function of its id, which only holders of the seal key can compute. So the answer to a
 * repeated request is the same without a secret being kept anywhere.
 */
function secretOf(api: Api, id: string): string {
  const sealed = api.seal.seal(Buffer.from(id), `join-token-secret/${id}`);
  return createHash('sha256').update(sealed).digest().subarray(0, JOIN_SECRET_BYTES).toString('base64url');
}

const PURPOSE_WORDS = Object.values(CertificatePurpose);

export function joinService(api: Api): Service<typeof JoinServiceDefinition> {
  return {
    join: {
      access: 'join',
      // Six certificate requests of RSA keys are 12 KB.
      bytesMax: 64 * 1024,
      guard: joinGuard(api.clock),
      schema: z.object({
        tokenId: z.uuid('the id in the token'),
        // Never shown (SECRET_FIELDS).
        secret: text(256, 'at most 256 characters'),
        addresses: list(address, 0, ADDRESSES_MAX, ADDRESSES_RULE),
        csrs: list(
          z.object({ purpose: z.enum(PURPOSE_WORDS, PURPOSE_WORDS.join(', ')), csrPem }),
          1,
          8,
          '1 to 8 certificate requests',
        ),
      }),
      handle: (request, call) => join(api, request, call),
    },
  };
}

async function join(api: Api, request: JoinRequest, call: Call): Promise<JoinResponse> {
  await api.view.fresh();
  const entry = api.view.tables['join-token'].get(request.tokenId);
  // Compared also when there is nothing to compare with: the time tells nothing.
  const right = secretMatches(request.secret, entry?.record.secretDigest ?? secretDigest(''));
  if (entry === undefined || !right) throw unknownToken();
  const { record } = entry;
  const requestDigest = createHash('sha256')
    .update(contentOf(JoinRequest, { ...request, secret: '' }))
    .digest('hex');
  const caller: Caller = { ...call.caller, name: `join-token/${request.tokenId}` };
  const now = api.clock.wallTime();
  const former = formerUse(api.view, record, requestDigest, now);
  const certificates = former === null ? await signAll(api, record, request, caller, now) : [];
  return mutate(
    api,
    { ...call, caller },
    {
      method: 'Join',
      whileBehind: true,
      content: Buffer.from(requestDigest),
      // The token itself is what makes a repeat safe.
      requestId: '',
      validateOnly: false,
      plan: () => planRedeem(api.view, request.tokenId, { requestDigest, certificates, now: api.clock.wallTime() }),
      preview: () => respond(api, request.tokenId),
      respond: ({ resourceId }) => respond(api, resourceId),
    },
  );
}

async function signAll(api: Api, record: JoinTokenRecord, request: JoinRequest, caller: Caller, now: Date) {
  const { host, voter, addresses } = tokenOf(record);
  if (addresses.length === 0) throw withoutAddresses(host);
  const sent = request.addresses.map((each) => canonicalAddress(each) ?? each);
  if (sent.some((each) => !addresses.includes(each))) throw addressesDiffer(host, sent, addresses);
  // A controller may have been configured since.
  const taken = takenAddress(api.view, api.controllers, host, addresses, now);
  if (taken !== null) throw addressInUse(host, taken);
  const purposes = purposesOf({ voter });
  return await Promise.all(
    purposes.map(async (purpose) => {
      const word = presentPurpose(purpose);
      const index = request.csrs.findIndex((csr) => csr.purpose === word);
      const csr = request.csrs[index];
      if (csr === undefined) {
        const expected = `one for ${word}, which the token covers`;
        throw invalid([{ field: 'csrs', problem: 'is incomplete', expected }]);
      }
      const issued = await sign(
        api,
        { purpose, holder: { kind: 'host', name: host, addresses }, validDays: CERTIFICATE_DAYS },
        { field: `csrs[${index}].csrPem`, pem: csr.csrPem },
      );
      return newCertificate(issued, { name: caller.name, time: now });
    }),
  );
}

/** Made by an older version, whose hosts brought their addresses themselves. */
function withoutAddresses(host: string): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'ADDRESS_NOT_IN_TOKEN',
    message: `the join token for host "${host}" names no address of it`,
    hint: `${NEW_TOKEN} ${host} --address IP`,
  });
}

/** From the records, so that it is the same whenever it is asked for. */
function respond(api: Api, id: string): JoinResponse {
  const record = api.view.tables['join-token'].get(id)?.record;
  if (record === undefined) throw unknownToken();
  const { host, role, voter, addresses } = tokenOf(record);
  return {
    cluster: api.clusterName,
    host,
    role,
    voter,
    caPem: authorityPem(api, 'ca'),
    etcdCaPem: voter ? authorityPem(api, 'etcd-ca') : '',
    libvirtCaPem: '',
    certificates: record.serials.flatMap((serial) => {
      const certificate = certificateOf(api.view, serial);
      return certificate === undefined
        ? []
        : [{ purpose: certificate.purpose, certificatePem: certificate.certificatePem }];
    }),
    controllers: api.controllers.map((member) => ({ ...member })),
    etcdEndpoints: voter ? [...api.forVoters.etcdEndpoints] : [],
    addresses,
    sealKey: voter ? Buffer.from(api.forVoters.sealKey) : Buffer.alloc(0),
  };
}
