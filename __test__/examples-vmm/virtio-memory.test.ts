/**
 * virtio-mem of the example VMM. A driver in TypeScript sets it up by its registers, and sends requests.
 */
import test, { type ExecutionContext } from 'ava';
import { VirtioMemory } from '../../examples/vmm/virtio/memory-device.ts';
import { VirtioPciTransport } from '../../examples/vmm/virtio/pci-transport.ts';
import { GuestMemory, type PluggableRam, PeerDmaError } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { until } from '../support/until.ts';

const MiB = 1n << 20n;
const BLOCK = 2n * MiB;
const START = 4n << 30n;
const BAR = 0xd000_0000n;
/** The queue, the request and the response of the driver, in RAM. */
const [DESCRIPTORS, AVAILABLE, USED, REQUEST, RESPONSE] = [0x1000n, 0x2000n, 0x3000n, 0x4000n, 0x5000n];
const [PLUG, UNPLUG, UNPLUG_ALL, STATE] = [0, 1, 2, 3];
const [ACK, NACK, BUSY, ERROR] = [0, 1, 2, 3];
const QUEUE_SIZE = 8;
const NEEDS_RESET = 64;

/** A driver by the registers of the device. */
class Driver {
  readonly memory: GuestMemory;
  readonly transport: VirtioPciTransport;
  #sent = 0;

  constructor(memory: GuestMemory, transport: VirtioPciTransport) {
    this.memory = memory;
    this.transport = transport;
    transport.configWrite(0x10, 4, Number(BAR));
    transport.configWrite(0x04, 2, 6);
  }

  read(offset: number, size: number): number {
    const bytes = this.transport.mmioRead(BAR + BigInt(offset), size);
    return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
  }

  write(offset: number, size: number, value: number): void {
    const bytes = Uint8Array.from({ length: size }, (_, index) => Math.floor(value / 256 ** index));
    this.transport.mmioWrite(BAR + BigInt(offset), bytes);
  }

  /** Negotiates features, and sets up the queue. */
  start(features: number = 2): void {
    this.write(0x14, 1, 0);
    this.write(0x14, 1, 3);
    this.write(0x08, 4, 0);
    this.write(0x0c, 4, features);
    this.write(0x08, 4, 1);
    this.write(0x0c, 4, 1); // version 1
    this.write(0x14, 1, 11);
    this.write(0x16, 2, 0);
    this.write(0x18, 2, QUEUE_SIZE);
    for (const [offset, address] of [
      [0x20, DESCRIPTORS],
      [0x28, AVAILABLE],
      [0x30, USED],
    ] as const) {
      this.write(offset, 4, Number(address));
      this.write(offset + 4, 4, 0);
    }
    for (const address of [AVAILABLE, USED]) this.memory.write(address, new Uint8Array(256));
    this.#sent = 0;
    this.write(0x1c, 2, 1);
    this.write(0x14, 1, 15);
  }

  /** Makes a buffer of descriptors available: `[address, length, flags, next]` each. */
  send(...descriptors: readonly (readonly [bigint, number, number, number])[]): void {
    for (const [index, [address, length, flags, next]] of descriptors.entries()) {
      const at = DESCRIPTORS + 16n * BigInt(index);
      this.memory.write64(at, address);
      this.memory.write32(at + 8n, length);
      this.memory.write16(at + 12n, flags);
      this.memory.write16(at + 14n, next);
    }
    this.memory.write16(AVAILABLE + 4n + 2n * BigInt(this.#sent % QUEUE_SIZE), 0);
    this.memory.write16(AVAILABLE + 2n, ++this.#sent);
    this.write(0x3000, 2, 0);
  }

  /** Sends a request, and waits for its response: the type, and the state of the blocks. */
  async request(type: number, address = 0n, blocks = 0): Promise<readonly [number, number]> {
    this.memory.write(REQUEST, new Uint8Array(24));
    this.memory.write16(REQUEST, type);
    this.memory.write64(REQUEST + 8n, address);
    this.memory.write16(REQUEST + 16n, blocks);
    this.memory.write(RESPONSE, new Uint8Array(10).fill(0xff));
    this.send([REQUEST, 24, 1, 1], [RESPONSE, 10, 2, 0]);
    await until(() => this.memory.read16(USED + 2n) === this.#sent, 'the answer of the device');
    return [this.memory.read16(RESPONSE), this.memory.read16(RESPONSE + 8n)];
  }

  get status(): number {
    return this.read(0x14, 1);
  }
}

interface Rig {
  readonly ram: PluggableRam;
  readonly device: VirtioMemory;
  readonly driver: Driver;
  readonly iommu: SimulatedIommu;
  /** Levels of the pin. */
  readonly pins: boolean[];
}

async function rig(t: ExecutionContext): Promise<Rig> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: MiB }] });
  t.teardown(() => memory.close());
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const ram = await memory.addPluggableRam({ start: START, length: 8n * BLOCK, blockSize: BLOCK });
  const device = new VirtioMemory(ram);
  const pins: boolean[] = [];
  const setPin = (isAsserted: boolean): void => void pins.push(isAsserted);
  const transport = new VirtioPciTransport({ memory, device, setPin, failed: (error) => t.fail(String(error)) });
  return { ram, device, driver: new Driver(memory, transport), iommu, pins };
}

const at = (block: number): bigint => START + BigInt(block) * BLOCK;

test('the guest finds a virtio-mem with its capabilities, and reads its configuration', async (t) => {
  const { driver, device } = await rig(t);
  const config = (offset: number, size: number): number => driver.transport.configRead(offset, size);
  t.deepEqual([config(0, 2), config(2, 2), config(0x3d, 1)], [0x1af4, 0x1040 + 24, 1]);
  const kinds: number[] = [];
  for (let cap = config(0x34, 1); cap !== 0; cap = config(cap + 1, 1)) kinds.push(config(cap + 3, 1));
  t.deepEqual(kinds, [1, 2, 3, 4]);
  driver.start();
  t.is(driver.status, 15);
  device.request(5n * BLOCK + 1n);
  const words = [0, 16, 24, 32, 40, 48].map((offset) => driver.read(0x2000 + offset, 8));
  t.deepEqual(words.map(BigInt), [BLOCK, START, 8n * BLOCK, 8n * BLOCK, 0n, 5n * BLOCK]);
});

test('a driver that would access unplugged blocks is not accepted', async (t) => {
  const { driver } = await rig(t);
  driver.start(0);
  t.is(driver.status & 8, 0);
});

test('requests plug, unplug and report blocks, which devices reach while they are plugged', async (t) => {
  const { driver, device, ram, iommu } = await rig(t);
  driver.start();
  device.request(4n * BLOCK);
  const generation = driver.read(0x15, 1);
  t.deepEqual(await driver.request(PLUG, at(1), 2), [ACK, 0]);
  t.not(driver.read(0x15, 1), generation, 'plugged_size has changed');
  iommu.write(at(2), Uint8Array.of(7));
  t.deepEqual(await driver.request(STATE, at(1), 2), [ACK, 0], 'plugged');
  t.deepEqual(await driver.request(STATE, at(3), 1), [ACK, 1], 'unplugged');
  t.deepEqual(await driver.request(STATE, at(0), 2), [ACK, 2], 'mixed');
  t.deepEqual((await driver.request(UNPLUG, at(1), 1))[0], ACK);
  t.throws(() => iommu.read(at(1), 1), { code: 'ERR_DMA_FAULT' });
  t.deepEqual(iommu.read(at(2), 1), Uint8Array.of(7));
  t.is(BigInt(driver.read(0x2000 + 40, 8)), BLOCK);
  t.deepEqual((await driver.request(UNPLUG_ALL))[0], ACK);
  t.is(ram.pluggedLength, 0n);
});

test('a guest that asks for nonsense gets an error, and nothing has changed', async (t) => {
  const { driver, device, ram } = await rig(t);
  driver.start();
  device.request(2n * BLOCK);
  await driver.request(PLUG, at(0), 1);
  const attempts: [type: number, address: bigint, blocks: number, response: number][] = [
    [PLUG, at(0), 1, ERROR],
    [PLUG, at(1), 2, NACK],
    [PLUG, at(1) + 4096n, 1, ERROR],
    [PLUG, at(7), 2, ERROR],
    [PLUG, at(1), 0, ERROR],
    [PLUG, 0n, 1, ERROR],
    [PLUG, (1n << 64n) - BLOCK, 0xffff, ERROR],
    [UNPLUG, at(0), 2, ERROR],
    [UNPLUG, at(3), 1, ERROR],
    [STATE, at(8), 1, ERROR],
    [4, at(1), 1, ERROR],
    [0xffff, at(1), 1, ERROR],
  ];
  for (const [type, address, blocks, response] of attempts) {
    t.is((await driver.request(type, address, blocks))[0], response, `${type} ${address.toString(16)} ${blocks}`);
  }
  t.deepEqual(ram.plugged().map(String), ['0x100000000..0x100200000']);
  t.is(driver.status, 15);
});

test('a plug that a target rejects is busy', async (t) => {
  const { driver, device, ram } = await rig(t);
  await driver.memory.dmaMappers.addDmaMapper({
    name: 'full',
    mapDma: ({ range }) => {
      if (range.start >= START) throw new Error('no room');
    },
    unmapDma: () => {},
  });
  driver.start();
  device.request(BLOCK);
  t.is((await driver.request(PLUG, at(0), 1))[0], BUSY);
  t.is(ram.pluggedLength, 0n);
});

test('a failed discard rejects a plug, but not an unplug: the blocks are unplugged', async (t) => {
  const { driver, device, ram } = await rig(t);
  driver.start();
  device.request(BLOCK);
  const fail = async (): Promise<never> => {
    throw new PeerDmaError('ERR_DISCARD_FAILED', 'no holes');
  };
  Object.assign(ram, { plug: fail, unplug: fail });
  t.is((await driver.request(PLUG, at(0), 1))[0], BUSY);
  t.is((await driver.request(UNPLUG, at(0), 1))[0], ACK);
});

/** A custom target that maps blocks when the test lets it. */
async function slowTarget({ driver }: Rig): Promise<() => void> {
  let release = (): void => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  await driver.memory.dmaMappers.addDmaMapper({
    name: 'slow',
    mapDma: ({ range }) => (range.start >= START ? gate : undefined),
    unmapDma: () => {},
  });
  return release;
}

test('a reset ends a request under way: nothing is written, and the driver reads 0 after it', async (t) => {
  const all = await rig(t);
  const { driver, device, ram } = all;
  const release = await slowTarget(all);
  driver.start();
  device.request(BLOCK);
  const written = driver.request(PLUG, at(0), 1).catch(() => 'never');
  await new Promise(setImmediate);
  driver.write(0x14, 1, 0);
  t.not(driver.status, 0, 'the device works on the request');
  const before = [USED, RESPONSE].map((address) => driver.memory.read(address, 16));
  release();
  await until(() => driver.status === 0, 'the end of the reset');
  t.is(ram.pluggedLength, BLOCK);
  t.deepEqual(
    [USED, RESPONSE].map((address) => driver.memory.read(address, 16)),
    before,
  );
  driver.start();
  t.is((await driver.request(STATE, at(0), 1))[0], ACK);
  await written;
});

test('a driver that resets the device again and again cannot plug more than requested', async (t) => {
  const all = await rig(t);
  const { driver, device, ram } = all;
  const release = await slowTarget(all);
  device.request(BLOCK);
  for (let block = 0; block < 8; block++) {
    driver.start();
    driver.memory.write16(REQUEST, PLUG);
    driver.memory.write64(REQUEST + 8n, at(block));
    driver.memory.write16(REQUEST + 16n, 1);
    driver.send([REQUEST, 24, 1, 1], [RESPONSE, 10, 2, 0]);
    await new Promise(setImmediate);
  }
  release();
  driver.write(0x14, 1, 0);
  await until(() => driver.status === 0, 'the end of the reset');
  await ram.plug([]); // after all others
  t.true(ram.pluggedLength <= BLOCK, String(ram.pluggedLength));
});

test('a queue that is never empty does not stop the rest of the VMM', async (t) => {
  const { device } = await rig(t);
  let taken = 0;
  let hadTurn = false;
  setImmediate(() => (hadTurn = true));
  const buffer = { head: 0, readable: [], writable: [] };
  const queue = {
    take: () => (hadTurn || ++taken > 10_000 ? undefined : buffer),
    read: () => new Uint8Array(),
    write: () => 0,
    put: () => {},
  };
  await device.process(queue as never);
  t.true(taken < 1000, `${taken} buffers`);
});

test('a device that is not a bus master does not access memory', async (t) => {
  const { driver } = await rig(t);
  driver.start();
  driver.transport.configWrite(0x04, 2, 2);
  driver.send([REQUEST, 8, 1, 1], [RESPONSE, 10, 2, 0]);
  await new Promise(setImmediate);
  t.is(driver.memory.read16(USED + 2n), 0);
  driver.transport.configWrite(0x04, 2, 6);
  driver.write(0x3000, 2, 0);
  await until(() => driver.memory.read16(USED + 2n) === 1, 'the answer of the device');
});

test('an invalid queue needs a reset, after which the device works', async (t) => {
  const { driver, device } = await rig(t);
  const broken: [string, (driver: Driver) => void][] = [
    ['a loop', (one) => one.send([REQUEST, 24, 1, 0])],
    ['a descriptor past the end', (one) => one.send([REQUEST, 24, 1, QUEUE_SIZE])],
    ['an indirect descriptor', (one) => one.send([REQUEST, 24, 4, 0])],
    ['an address without memory', (one) => one.send([0x9000_0000n, 24, 0, 0])],
    ['an address past 64 bits', (one) => one.send([(1n << 64n) - 8n, 24, 0, 0])],
    ['too many buffers', (one) => (one.memory.write16(AVAILABLE + 2n, 99), one.write(0x3000, 2, 0))],
  ];
  device.request(BLOCK);
  for (const [what, send] of broken) {
    driver.start();
    send(driver);
    await until(() => (driver.status & NEEDS_RESET) !== 0, 'the answer of the device');
    driver.start();
    t.is(driver.status, 15, what);
    t.is((await driver.request(STATE, at(0), 1))[0], ACK, what);
  }
});

test('a short request is an error, and a short response is cut', async (t) => {
  const { driver, pins } = await rig(t);
  driver.start();
  driver.memory.write(RESPONSE, new Uint8Array(10).fill(0xff));
  driver.send([REQUEST, 8, 1, 1], [RESPONSE, 2, 2, 0]);
  await until(() => driver.memory.read16(USED + 2n) === 1, 'the answer of the device');
  t.deepEqual([driver.memory.read16(RESPONSE), driver.memory.read16(RESPONSE + 8n)], [ERROR, 0xffff]);
  t.is(driver.memory.read32(USED + 8n), 2);
  await until(() => pins.at(-1) === true, 'the answer of the device');
  t.is(driver.read(0x1000, 1), 1, 'a queue has buffers');
  t.is(pins.at(-1), false);
});

test('a change of the requested size interrupts the driver, unless the pin is disabled', async (t) => {
  const { driver, device, pins } = await rig(t);
  device.request(BLOCK);
  t.not(pins.at(-1), true, 'no driver yet');
  driver.start();
  const generation = driver.read(0x15, 1);
  device.request(2n * BLOCK);
  t.is(pins.at(-1), true);
  t.not(driver.read(0x15, 1), generation);
  driver.transport.configWrite(0x04, 2, 0x406);
  t.is(pins.at(-1), false);
  t.is(driver.transport.configRead(0x06, 2) & 8, 8, 'but pending');
  driver.transport.configWrite(0x04, 2, 6);
  t.is(pins.at(-1), true);
  t.is(driver.read(0x1000, 1), 2);
  t.is(pins.at(-1), false);
  device.request(100n * BLOCK);
  t.is(device.requestedLength, 8n * BLOCK);
  device.request(-1n);
  t.is(device.requestedLength, 0n);
});
