/**
 * The interrupt of QEMU's educational device `edu`: a register raises it, another one acknowledges it. With MSI, each
 * raising write is a message; the pin stays asserted until all causes are acknowledged (QEMU, docs/specs/edu.rst).
 */
import type { ExecutionContext } from 'ava';
import { readFileSync } from 'node:fs';
import { Edu } from '../../../examples/devices/edu.ts';
import type { VfioDevice, VfioRegion } from '../../../ts/index.ts';
import { EventFd } from '../../../ts/event-fd.ts';
import { until } from '../../support/until.ts';
import { rig } from './rig.ts';

/** Offsets in BAR 0. */
const STATUS = 0x24n;
const RAISE = 0x60n;
const ACKNOWLEDGE = 0x64n;

/** Milliseconds within which an interrupt would arrive. In a guest without KVM one takes less than one. */
const SILENCE = 200;

export class InterruptingEdu {
  readonly device: VfioDevice;
  readonly #registers: VfioRegion;

  private constructor(device: VfioDevice) {
    this.device = device;
    new Edu(device); // memory decode and bus mastering: a message is a write to memory
    if (device.regions[0] === undefined) throw new Error(`${device.bdf} has no BAR 0`);
    this.#registers = device.regions[0];
  }

  /** Closed when the test ends, its interrupt acknowledged, for the next test. */
  static async open(t: ExecutionContext, bdf: string): Promise<InterruptingEdu> {
    const { open } = await rig(t, false);
    const edu = new InterruptingEdu(await open(bdf));
    edu.acknowledge();
    return edu;
  }

  raise(bits = 1): void {
    this.#registers.write32(RAISE, bits);
  }

  acknowledge(bits = 0xffff_ffff): void {
    this.#registers.write32(ACKNOWLEDGE, bits);
  }

  get status(): number {
    return this.#registers.read32(STATUS);
  }
}

/** Closed when the test ends. */
export function event(t: ExecutionContext): EventFd {
  const made = EventFd.create();
  t.teardown(() => made.close());
  return made;
}

/** The count of an event, without reading it. */
export function counted({ fd }: EventFd): bigint {
  const hex = /^eventfd-count: *([0-9a-f]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  return BigInt(`0x${hex ?? ''}`);
}

/** Waits for an event to be signalled, and reads its count. */
export async function arrives(event: EventFd): Promise<bigint> {
  await until(() => counted(event) > 0n, 'an interrupt arrives');
  return event.take();
}

/** Checks that an event is not signalled. */
export async function silent(t: ExecutionContext, event: EventFd, message: string): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, SILENCE));
  t.is(counted(event), 0n, message);
}
