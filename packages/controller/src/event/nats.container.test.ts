// SPDX-License-Identifier: Apache-2.0
import { natsContainer } from '../testing/containers/nats.ts';
import { eventBusConformance } from './conformance.ts';

eventBusConformance('NATS in a container', natsContainer);
