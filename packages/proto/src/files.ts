// SPDX-License-Identifier: Apache-2.0
// Generated files that programs read at run time. As URLs from here, so that the bundler finds them and puts them
// beside the bundles.

/** A FileDescriptorSet of all .proto files, with their comments: reflection, and the check of JSON requests. */
export const DESCRIPTORS = new URL('./gen/descriptors.binpb', import.meta.url);
/** The API as OpenAPI 3.1: what the JSON edge serves as /openapi.json. */
export const OPENAPI = new URL('./gen/openapi.json', import.meta.url);
