/**
 * The entry point `peerdma/vhost-user`: virtio devices that other processes implement.
 */
import './index.ts';
export { VhostUserTarget } from './vhost-user/vhost-user-target.ts';
export type { VhostUserOptions, VhostUserProtocolFeature } from './vhost-user/options.ts';
export type { VhostUserQueue } from './vhost-user/queue.ts';
export type { VhostUserState } from './vhost-user/link.ts';
