/**
 * Operations on targets: they join, leave, and are closed without a call of the package.
 */
import type { PeerToPeer } from '../../../ts/index.ts';
import type { CastName } from './cast.ts';
import { domainsOf } from './domains.ts';
import type { Operation } from './operation.ts';
import type { World } from './world.ts';

abstract class OnTarget {
  readonly target: CastName;

  constructor(target: CastName) {
    this.target = target;
  }
}

/** A target joins. */
export class Register extends OnTarget implements Operation {
  readonly kind = 'register';
  readonly policy: PeerToPeer;

  constructor(target: CastName, policy: PeerToPeer) {
    super(target);
    this.policy = policy;
  }

  possible(world: World): boolean {
    return !world.members.has(this.target);
  }

  async start(world: World): Promise<void> {
    const target = world.cast[this.target];
    const options = { peerToPeer: this.policy, peerToPeerDomains: domainsOf(this.target) };
    world.handles.set(this.target, await world.memory.dmaMappers.addDmaMapper(target, options));
  }

  override toString(): string {
    return `register "${this.target}", peer-to-peer ${this.policy}`;
  }
}

/** A target leaves. */
export class Unregister extends OnTarget implements Operation {
  readonly kind = 'unregister';

  possible(world: World): boolean {
    return world.members.has(this.target) && world.handles.has(this.target);
  }

  async start(world: World): Promise<void> {
    await world.handles.get(this.target)?.remove();
  }

  override toString(): string {
    return `unregister "${this.target}"`;
  }
}

/** A target is closed with all its mappings, which ends its quarantine. */
export class TargetClosed extends OnTarget implements Operation {
  readonly kind = 'target closed';

  possible(world: World): boolean {
    return world.members.has(this.target);
  }

  async start(world: World): Promise<void> {
    const target = world.cast[this.target];
    target.closeWithMappings();
    await world.memory.dmaMappers.targetClosed(target);
  }

  override toString(): string {
    return `"${this.target}" is closed`;
  }
}
