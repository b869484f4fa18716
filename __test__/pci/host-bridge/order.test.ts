/** The order of accesses that are not awaited: each observes the config writes before it. */
import test, { type ExecutionContext } from 'ava';
import { PciHostBridge } from '../../../ts/index.ts';
import { PeerDmaError } from '../../../ts/errors.ts';
import { Fixture } from '../support/fixture.ts';
import { ECAM, LOW, byPorts, bytesOf, ecamAddress, numberFrom, ones, place32 } from './support/guest.ts';
import { RegisterFunction } from './support/register-function.ts';

const SLOW = '00:01.0';
const QUICK = '00:02.0';
const PLACE = LOW.start;
const OTHER = LOW.start + 0x10_0000n;
const BAR = 0x10n;

interface Scene {
  readonly bridge: PciHostBridge;
  readonly slow: RegisterFunction;
  readonly quick: RegisterFunction;
  /** Lets the config writes of the slow function take effect. */
  release(): void;
}

/** Two functions with BARs at PLACE and above it. Config writes of the first one wait from now on. */
async function scene(): Promise<Scene> {
  const bridge = new PciHostBridge({ ecam: ECAM, windows: [LOW] });
  const [slow, quick] = [new RegisterFunction(), new RegisterFunction(0x1000, 0x2222)];
  bridge.add(SLOW, slow);
  bridge.add(QUICK, quick);
  await place32(byPorts(bridge), SLOW, 0, PLACE);
  await place32(byPorts(bridge), QUICK, 0, PLACE + 0x1000n);
  slow.registers.fill(0x11);
  quick.registers.fill(0x22);
  slow.log.length = 0;
  let release = (): void => {};
  slow.delay = new Promise((resolve) => {
    release = resolve;
  });
  return { bridge, slow, quick, release };
}

/** A write to the BAR register of the slow function. */
function move(bridge: PciHostBridge, gpa: bigint): Promise<void> {
  return Promise.resolve(bridge.mmioWrite(ecamAddress(SLOW) + BAR, bytesOf(Number(gpa), 4)));
}

/** The result of an access that does not wait. */
function atOnce<T>(t: ExecutionContext, result: T | Promise<T>): T {
  if (result instanceof Promise) throw new Error('the access waits');
  t.pass();
  return result;
}

test('accesses return values, and config writes of a function that returns no promise, too', (t) => {
  const bridge = new PciHostBridge({ ecam: ECAM, windows: [] });
  bridge.add(SLOW, new RegisterFunction());
  t.is(atOnce(t, bridge.portWrite(0xcf8, 4, 0x8000_0800)), undefined);
  t.is(atOnce(t, bridge.portRead(0xcfc, 4)), 0x1111_1234);
  t.is(atOnce(t, bridge.portWrite(0xcfc, 4, 0)), undefined);
  t.is(atOnce(t, bridge.mmioWrite(ecamAddress(SLOW) + BAR, bytesOf(Number(PLACE), 4))), undefined);
  t.is(numberFrom(atOnce(t, bridge.mmioRead(ecamAddress(SLOW) + BAR, 4))), Number(PLACE));
  t.deepEqual(atOnce(t, bridge.mmioRead(PLACE, 4)), ones(4));
  t.is(atOnce(t, bridge.mmioWrite(PLACE, ones(4))), undefined);
});

test('reads of config space wait for the writes before them, and not for later ones', async (t) => {
  const { bridge, release } = await scene();
  const write = move(bridge, OTHER);
  const byEcam = bridge.mmioRead(ecamAddress(SLOW) + BAR, 4);
  await bridge.portWrite(0xcf8, 4, 0x8000_0810);
  const byPort = bridge.portRead(0xcfc, 4);
  const back = move(bridge, PLACE);
  const last = bridge.mmioRead(ecamAddress(SLOW) + BAR, 4);
  release();
  t.is(numberFrom(await byEcam), Number(OTHER));
  t.is(await byPort, Number(OTHER));
  t.is(numberFrom(await last), Number(PLACE));
  await Promise.all([write, back]);
});

test('CONFIG_ADDRESS selects the function at the time of the access, not when it takes effect', async (t) => {
  const { bridge, release } = await scene();
  const write = move(bridge, OTHER);
  void bridge.portWrite(0xcf8, 4, 0x8000_0810);
  const waiting = bridge.portRead(0xcfc, 4);
  void bridge.portWrite(0xcf8, 4, 0x8000_1000);
  t.is(atOnce(t, bridge.portRead(0xcfc, 4)), 0x2222_1234);
  release();
  t.is(await waiting, Number(OTHER));
  await write;
});

test('accesses to BARs are dispatched by the addresses after the write', async (t) => {
  const { bridge, slow, release } = await scene();
  const write = move(bridge, OTHER);
  const oldPlace = bridge.mmioRead(PLACE, 2);
  const newPlace = bridge.mmioRead(OTHER, 2);
  const toOld = bridge.mmioWrite(PLACE, Uint8Array.of(1));
  const toNew = bridge.mmioWrite(OTHER + 1n, Uint8Array.of(2));
  const after = bridge.mmioRead(OTHER, 2);
  release();
  t.deepEqual(await oldPlace, ones(2));
  t.deepEqual([...(await newPlace)], [0x11, 0x11]);
  await Promise.all([toOld, toNew, write]);
  t.deepEqual([...(await after)], [0x11, 2]);
  t.deepEqual(slow.registers.slice(0, 2), Uint8Array.of(0x11, 2));
});

test('accesses to other functions do not wait', async (t) => {
  const { bridge, release } = await scene();
  const write = move(bridge, OTHER);
  t.deepEqual([...atOnce(t, bridge.mmioRead(PLACE + 0x1000n, 2))], [0x22, 0x22]);
  atOnce(t, bridge.mmioWrite(PLACE + 0x1000n, Uint8Array.of(3)));
  t.is(numberFrom(atOnce(t, bridge.mmioRead(ecamAddress(QUICK), 4))), 0x2222_1234);
  atOnce(t, bridge.mmioWrite(ecamAddress(QUICK) + BAR, bytesOf(Number(PLACE + 0x1000n), 4)));
  t.is(numberFrom(atOnce(t, bridge.mmioRead(ecamAddress('00:03.0'), 4))), 0xffff_ffff);
  release();
  await write;
});

test('an access across two BARs waits for the writes of both, and once', async (t) => {
  const { bridge, quick, release } = await scene();
  let releaseQuick = (): void => {};
  quick.delay = new Promise((resolve) => {
    releaseQuick = resolve;
  });
  const writes = [move(bridge, PLACE), bridge.mmioWrite(ecamAddress(QUICK) + BAR, bytesOf(Number(PLACE + 0x1000n), 4))];
  const across = bridge.mmioRead(PLACE + 0xffen, 4);
  let done = false;
  void Promise.resolve(across).then(() => {
    done = true;
  });
  release();
  await writes[0];
  await new Promise((resolve) => setImmediate(resolve));
  t.false(done);
  releaseQuick();
  t.deepEqual([...(await across)], [0x11, 0x11, 0x22, 0x22]);
  await Promise.all(writes);
});

test('writes of a function are made one after the other, each after the previous has resolved', async (t) => {
  const { bridge, slow, release } = await scene();
  const writes = [
    bridge.mmioWrite(ecamAddress(SLOW) + BAR, new Uint8Array(8)),
    bridge.mmioWrite(ecamAddress(SLOW), new Uint8Array(4)),
  ];
  t.deepEqual(slow.log, ['write 4 at 16']);
  release();
  await Promise.all(writes);
  t.deepEqual(slow.log, ['write 4 at 16', 'write 4 at 20', 'write 4 at 0']);
});

test('a failed write rejects its own promise only, and the next access is made', async (t) => {
  const { bridge, slow } = await scene();
  slow.delay = Promise.reject(new PeerDmaError('ERR_SYSTEM', 'the kernel rejects it'));
  const write = Promise.resolve(bridge.mmioWrite(ecamAddress(SLOW) + BAR, new Uint8Array(8)));
  const read = bridge.mmioRead(ecamAddress(SLOW) + BAR, 4);
  const bar = bridge.mmioRead(PLACE, 1);
  await t.throwsAsync(write, { message: 'the kernel rejects it' });
  t.is(numberFrom(await read), Number(PLACE));
  t.deepEqual([...(await bar)], [0x11]);
  t.deepEqual(slow.log.slice(0, 2), ['write 4 at 16', 'read 4 at 16'], 'the second dword was not written');
});

test('the addresses of BARs are read again after a write that failed', async (t) => {
  const { bridge, slow } = await scene();
  slow.failAfterWrite = new PeerDmaError('ERR_SYSTEM', 'it took effect in part');
  slow.delay = Promise.resolve();
  await t.throwsAsync(move(bridge, OTHER), { is: slow.failAfterWrite });
  t.deepEqual([...(await bridge.mmioRead(OTHER, 1))], [0x11]);
  t.deepEqual(await bridge.mmioRead(PLACE, 1), ones(1));
});

test('an exception of a waiting access rejects its promise only', async (t) => {
  const { bridge, slow, release } = await scene();
  const write = move(bridge, OTHER);
  const read = Promise.resolve(bridge.mmioRead(ecamAddress(SLOW), 4));
  const next = bridge.mmioRead(OTHER, 1);
  slow.failure = new RangeError('no such register');
  release();
  await t.throwsAsync(read, { is: slow.failure });
  t.deepEqual([...(await next)], [0x11]);
  await write;
});

test('waiting accesses to a removed function read ones, and writes are dropped', async (t) => {
  const { bridge, slow, release } = await scene();
  const accesses = [
    move(bridge, OTHER),
    bridge.mmioRead(ecamAddress(SLOW), 4),
    bridge.mmioRead(PLACE, 4),
    bridge.mmioWrite(PLACE, new Uint8Array(4)),
    bridge.mmioWrite(ecamAddress(SLOW), new Uint8Array(4)),
  ];
  bridge.remove(SLOW);
  bridge.add(SLOW, new RegisterFunction());
  release();
  t.deepEqual((await Promise.all(accesses)).slice(0, 4), [undefined, ones(4), ones(4), undefined]);
  t.deepEqual(slow.log, ['write 4 at 16']);
  t.is(slow.registers[0], 0x11);
  t.deepEqual(await bridge.mmioRead(OTHER, 4), ones(4));
});

test('config writes of assigned devices that are not awaited take effect in order', async (t) => {
  const fixture = await Fixture.create(t);
  const bridge = new PciHostBridge({ memory: fixture.memory, ecam: ECAM, windows: [LOW] });
  const device = await fixture.assign();
  bridge.add(SLOW, device);
  const at = ecamAddress(SLOW);
  const accesses = [
    bridge.mmioWrite(at + 0x20n, bytesOf(Number(PLACE), 4)),
    bridge.mmioWrite(at + 4n, Uint8Array.of(2, 0)),
    bridge.mmioWrite(PLACE, bytesOf(0x1234, 4)),
    bridge.mmioWrite(at + 0x20n, bytesOf(Number(OTHER), 4)),
    bridge.mmioRead(PLACE, 4),
    bridge.mmioRead(OTHER, 4),
    bridge.mmioRead(at + 0x20n, 4),
  ];
  const results = (await Promise.all(accesses)).slice(4).map((bytes) => numberFrom(bytes ?? ones(0)));
  t.deepEqual(results, [0xffff_ffff, 0x1234, Number(OTHER)]);
});
