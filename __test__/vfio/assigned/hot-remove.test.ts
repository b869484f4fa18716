/**
 * A device is removed while others write to it: after `close` nothing arrives any more. An ivshmem keeps its bytes, so
 * the next test that opens it would find bytes that arrived in between.
 */
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { testWith } from '../support/devices.ts';
import type { Engine } from './support/engine.ts';
import { Guest, HIGH, HIGHER, LOW, holders, mapped, physicalBar } from './support/guest.ts';

const BYTES = 2048;

testWith(
  { edu: 2, ivshmem: 1 },
  'a transfer in progress when a device is removed does not arrive',
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const other = guest.newManager();
    const engines = [await guest.engine(first), await guest.engine(second, { manager: other })];
    const without = mapped(guest.manager, other);
    let physical = await guest.manager.open(bdf);
    for (const place of [HIGH, LOW, HIGHER, HIGH]) {
      const peer = await guest.hand(physical);
      await peer.firmware.place(2, place);
      await peer.firmware.enable();
      for (const engine of engines) {
        t.true(await engine.reaches(peer, place));
        peer.device.mmioWrite(engine.target(place), new Uint8Array(BYTES));
      }
      const [early, late] = engines.toReversed() as [Engine, Engine];
      engines.reverse();
      // One transfer begins before the device is removed, the other when the channel reports that its BARs are
      // unmapped.
      const transfers = [early.strike(place)];
      const close = physical.close.bind(physical);
      let heldAtLast: string[] | undefined;
      peer.physical.close = () => {
        heldAtLast ??= holders(guest.memory, place);
        transfers.push(late.strike(place));
        return close();
      };
      await turn();
      await peer.device.close();
      const underWay = early.busy; // a transfer takes effect with its last byte
      t.deepEqual([heldAtLast, mapped(guest.manager, other)], [[], without]);
      await Promise.all(transfers);
      t.is(transfers.length, 2);
      physical = await guest.manager.open(bdf);
      const bar = physicalBar({ bdf, physical }, 2);
      for (const engine of underWay ? engines : [late])
        t.deepEqual(bar.read(engine.target(0n), BYTES), new Uint8Array(BYTES), 'not a byte arrived');
    }
  },
);

/** Writes a byte to an address, over and over; `address` is called for each write. */
class Writing {
  transfers = 0;
  #goesOn = true;
  readonly #done: Promise<void>;

  constructor(engine: Engine, gpa: bigint, byte: () => number) {
    this.#done = this.#write(engine, gpa, byte);
  }

  /** Waits for so many more transfers, without the one in progress. */
  async more(transfers: number): Promise<void> {
    const enough = this.transfers + 1 + transfers;
    while (this.transfers < enough) await sleep(10);
  }

  async stop(): Promise<void> {
    this.#goesOn = false;
    await this.#done;
  }

  async #write(engine: Engine, gpa: bigint, byte: () => number): Promise<void> {
    while (this.#goesOn) {
      await engine.send(new Uint8Array(BYTES).fill(byte()), gpa);
      this.transfers++;
    }
  }
}

testWith(
  { edu: 1, ivshmem: 1 },
  'a device that another one writes to is removed and added again',
  async (t, { edu: [engineBdf = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(engineBdf, { manager: guest.newManager() });
    let byte = 1;
    const writing = new Writing(engine, HIGH, () => byte);
    try {
      let physical = await guest.manager.open(bdf);
      for (let round = 0; round < 3; round++) {
        const peer = await guest.hand(physical);
        await peer.firmware.place(2, HIGH);
        await peer.firmware.enable();
        byte = 2 * round + 1;
        await writing.more(1);
        t.deepEqual(peer.device.mmioRead(HIGH, BYTES), new Uint8Array(BYTES).fill(byte), 'it arrives');
        await peer.device.close();
        byte++;
        physical = await guest.manager.open(bdf);
        const bar = physicalBar({ bdf, physical }, 2);
        const then = bar.read(0n, BYTES);
        t.false(then.includes(byte), 'the bytes sent since then');
        await writing.more(2);
        t.deepEqual(bar.read(0n, BYTES), then, 'not a byte has changed');
      }
    } finally {
      await writing.stop();
    }
  },
);
