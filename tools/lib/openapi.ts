// SPDX-License-Identifier: Apache-2.0
// The JSON edge of the API as an OpenAPI 3.1 document, made from the descriptors of packages/proto, comments included:
// what `docs/api.md` says in words. Pure.
import { fromBinary } from '@bufbuild/protobuf';
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  type FileDescriptorProto,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  type MethodDescriptorProto,
  type ServiceDescriptorProto,
  FieldDescriptorProto_Type as Type,
} from '@bufbuild/protobuf/wkt';

type Json = Record<string, unknown>;

interface Described<T> {
  readonly proto: T;
  readonly comment: (...path: readonly number[]) => string;
}

/** Field numbers within FileDescriptorProto, DescriptorProto and so on: how comments are addressed. */
const FILE_MESSAGE = 4;
const FILE_ENUM = 5;
const FILE_SERVICE = 6;
const MESSAGE_FIELD = 2;
const ENUM_VALUE = 2;
const SERVICE_METHOD = 2;

/** Only this package is served; the agents' protocol and the stored records are nobody else's business. */
const PACKAGE = 'busbar.v1';

export function openApi(descriptors: Uint8Array): string {
  const files = fromBinary(FileDescriptorSetSchema, descriptors).file.filter((file) => file.package === PACKAGE);
  const types = new Map(files.flatMap((file) => typesOf(file)));
  const services = files.flatMap((file) => servicesOf(file)).toSorted((a, b) => (a.proto.name < b.proto.name ? -1 : 1));
  const reached = new Set<string>();
  const reference = (typeName: string): Json => {
    reached.add(typeName);
    return { $ref: `#/components/schemas/${shortName(typeName)}` };
  };

  const paths: Json = {};
  for (const service of services) {
    for (const [index, method] of service.proto.method.entries()) {
      // Client streams (console, import) need gRPC.
      if (method.clientStreaming) continue;
      paths[`/${PACKAGE}.${service.proto.name}/${method.name}`] = method.serverStreaming
        ? streamPath(service, method, index, reference, types)
        : { post: { ...operation(service, method, index), ...unaryBody(method, reference) } };
    }
  }
  const schemas: Json = { Error: ERROR };
  reference(`.${PACKAGE}.FieldViolation`);
  for (const typeName of reached) {
    const found = types.get(typeName);
    // A set grows while it is walked: what a schema names is reached too.
    if (found !== undefined) schemas[shortName(typeName)] = schemaOf(found, reference);
  }
  return `${JSON.stringify(
    {
      openapi: '3.1.1',
      info: {
        title: 'Busbar',
        version: 'v1',
        description:
          'The API of a Busbar cluster as JSON over HTTPS. The same calls as over gRPC, from the same handlers, with the same errors. 64-bit integers are strings, bytes are base64, fields that are empty or zero are left out (but the lists of an answer are always there).',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [
        {
          url: 'https://{controller}:7801',
          description: 'Any controller of the cluster.',
          variables: { controller: { default: 'localhost', description: 'Host name or address of a controller.' } },
        },
      ],
      security: [{ clientCertificate: [] }],
      tags: services.map((service) => ({ name: service.proto.name, description: service.comment() })),
      paths,
      components: {
        securitySchemes: {
          clientCertificate: {
            type: 'mutualTLS',
            description: 'A client certificate of the cluster, with a role: viewer, operator or admin.',
          },
        },
        parameters: { Timeout: TIMEOUT, LastEventId: LAST_EVENT_ID },
        responses: {
          Error: {
            description: 'The call was refused or failed.',
            content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
          },
        },
        schemas: Object.fromEntries(Object.entries(schemas).toSorted(([a], [b]) => (a < b ? -1 : 1))),
      },
    },
    null,
    1,
  )}\n`;
}

const TIMEOUT = {
  name: 'Busbar-Timeout-Ms',
  in: 'header',
  description: 'Milliseconds after which the call shall end with DEADLINE_EXCEEDED: 1 to 3600000. None by default.',
  schema: { type: 'integer', minimum: 1, maximum: 3_600_000 },
};
const LAST_EVENT_ID = {
  name: 'Last-Event-ID',
  in: 'header',
  description: 'The `id` of the last event seen: the stream resumes after it. Wins over `revision`.',
  schema: { type: 'string', pattern: '^[0-9]+$' },
};
const ERROR = {
  type: 'object',
  description: 'An error as a user sees it: what, why, what to do.',
  required: ['code', 'reason', 'message', 'hint', 'fields'],
  properties: {
    code: { type: 'string', description: 'The gRPC status, e.g. NOT_FOUND.' },
    reason: { type: 'string', description: 'Stable upper-snake word for programs, e.g. VM_NAME_TAKEN.' },
    message: { type: 'string', description: 'What happened, with the values involved.' },
    hint: { type: 'string', description: 'What to do about it; empty when nothing can be done.' },
    fields: {
      type: 'array',
      description: 'The fields of the request at fault, when that is known.',
      items: { $ref: '#/components/schemas/FieldViolation' },
    },
  },
};
const FAILURE = { default: { $ref: '#/components/responses/Error' } };

function operation(service: Described<ServiceDescriptorProto>, method: MethodDescriptorProto, index: number): Json {
  return {
    operationId: `${service.proto.name}.${method.name}`,
    tags: [service.proto.name],
    description: service.comment(SERVICE_METHOD, index),
    parameters: [{ $ref: '#/components/parameters/Timeout' }],
  };
}

function unaryBody(method: MethodDescriptorProto, reference: (typeName: string) => Json): Json {
  return {
    requestBody: { required: true, content: { 'application/json': { schema: reference(method.inputType) } } },
    responses: {
      '200': { description: 'Done.', content: { 'application/json': { schema: reference(method.outputType) } } },
      ...FAILURE,
    },
  };
}

function streamPath(
  service: Described<ServiceDescriptorProto>,
  method: MethodDescriptorProto,
  index: number,
  reference: (typeName: string) => Json,
  types: ReadonlyMap<string, Described<DescriptorProto> | Described<EnumDescriptorProto>>,
): Json {
  const base = operation(service, method, index);
  const message = shortName(method.outputType);
  reference(method.outputType);
  const responses = {
    '200': {
      description: `Server-sent events; the \`data\` of each is a ${message} (see the schemas). \`event\` is the kind of change (put, delete, progress, resync), or \`failure\` with an Error; \`id\` is the revision to resume from.`,
      content: { 'text/event-stream': { schema: { type: 'string' } } },
    },
    ...FAILURE,
  };
  const resumed = (types.get(method.inputType)?.proto as DescriptorProto | undefined)?.field.some(
    ({ name }) => name === 'revision',
  );
  const post = {
    ...base,
    ...(resumed
      ? { parameters: [...(base.parameters as unknown[]), { $ref: '#/components/parameters/LastEventId' }] }
      : {}),
    requestBody: { required: true, content: { 'application/json': { schema: reference(method.inputType) } } },
    responses,
  };
  if (!resumed) return { post };
  const revision = {
    name: 'revision',
    in: 'query',
    description: 'Resume after this revision; 0 or none sends everything that exists first.',
    schema: { type: 'string', pattern: '^[0-9]+$' },
  };
  const get = {
    ...base,
    operationId: `${String(base.operationId)}.Events`,
    description: `${String(base.description)}\n\nFor EventSource, which can only GET: the same stream, of everything.`,
    parameters: [revision, ...(post.parameters as unknown[])],
    responses,
  };
  return { get, post };
}

function schemaOf(
  { proto, comment }: Described<DescriptorProto> | Described<EnumDescriptorProto>,
  reference: (typeName: string) => Json,
): Json {
  if (isEnum(proto)) {
    const words = proto.value.map(({ name }, index) => `- ${name}: ${comment(ENUM_VALUE, index)}`);
    return {
      type: 'string',
      description: [comment(), '', ...words].join('\n'),
      enum: proto.value.map(({ name }) => name),
    };
  }
  const maps = new Map(
    proto.nestedType.filter((nested) => nested.options?.mapEntry === true).map((nested) => [nested.name, nested]),
  );
  const properties: Json = {};
  for (const [index, field] of proto.field.entries()) {
    const entry = maps.get(field.typeName.split('.').at(-1) ?? '')?.field.find(({ name }) => name === 'value');
    const value = valueSchema(entry ?? field, reference);
    const schema =
      entry !== undefined
        ? { type: 'object', additionalProperties: value }
        : field.label === Label.REPEATED
          ? { type: 'array', items: value }
          : value;
    properties[field.jsonName] = { ...schema, description: comment(MESSAGE_FIELD, index) };
  }
  return {
    type: 'object',
    description: comment(),
    properties,
    // Answers of a newer controller may have more fields; a request with a field that nobody knows is refused.
    ...(proto.name.endsWith('Request') ? { additionalProperties: false } : {}),
  };
}

function valueSchema(field: FieldDescriptorProto, reference: (typeName: string) => Json): Json {
  switch (field.type) {
    case Type.STRING:
      return { type: 'string' };
    case Type.BOOL:
      return { type: 'boolean' };
    case Type.BYTES:
      return { type: 'string', contentEncoding: 'base64' };
    case Type.INT32:
      return { type: 'integer', format: 'int32' };
    case Type.UINT32:
      return { type: 'integer', minimum: 0, maximum: 2 ** 32 - 1 };
    case Type.INT64:
      return { type: 'string', format: 'int64', pattern: '^-?[0-9]+$' };
    case Type.UINT64:
      return { type: 'string', format: 'uint64', pattern: '^[0-9]+$' };
    case Type.DOUBLE:
    case Type.FLOAT:
      return { type: 'number' };
    case Type.ENUM:
      return reference(field.typeName);
    case Type.MESSAGE:
      return field.typeName === '.google.protobuf.Timestamp'
        ? { type: 'string', format: 'date-time' }
        : reference(field.typeName);
    default:
      throw new Error(`${field.name}: OpenAPI for type ${Type[field.type]} is not written yet (tools/lib/openapi.ts)`);
  }
}

function isEnum(proto: DescriptorProto | EnumDescriptorProto): proto is EnumDescriptorProto {
  return proto.$typeName === 'google.protobuf.EnumDescriptorProto';
}

function shortName(typeName: string): string {
  return typeName.replace(`.${PACKAGE}.`, '');
}

function typesOf(file: FileDescriptorProto): [string, Described<DescriptorProto> | Described<EnumDescriptorProto>][] {
  const comment = commentsOf(file);
  return [
    ...file.messageType.map((proto, index) => [
      `.${PACKAGE}.${proto.name}`,
      { proto, comment: (...path: readonly number[]) => comment(FILE_MESSAGE, index, ...path) },
    ]),
    ...file.enumType.map((proto, index) => [
      `.${PACKAGE}.${proto.name}`,
      { proto, comment: (...path: readonly number[]) => comment(FILE_ENUM, index, ...path) },
    ]),
  ] as [string, Described<DescriptorProto> | Described<EnumDescriptorProto>][];
}

function servicesOf(file: FileDescriptorProto): Described<ServiceDescriptorProto>[] {
  const comment = commentsOf(file);
  return file.service.map((proto, index) => ({ proto, comment: (...path) => comment(FILE_SERVICE, index, ...path) }));
}

function commentsOf(file: FileDescriptorProto): (...path: readonly number[]) => string {
  const comments = new Map(
    (file.sourceCodeInfo?.location ?? []).map(({ path, leadingComments }) => [path.join('.'), leadingComments]),
  );
  return (...path) =>
    (comments.get(path.join('.')) ?? '')
      .split('\n')
      .map((line) => line.trim())
      .join('\n')
      .trim();
}
