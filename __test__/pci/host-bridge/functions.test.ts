/** Functions at their addresses: several of one device, hot addition and removal, and invalid ones. */
import test from 'ava';
import { inspect } from 'node:util';
import { AddressRange, GuestMemory, type GuestPciFunction, PciHostBridge } from '../../../ts/index.ts';
import { rejectsCode, throwsCode } from '../../support/errors.ts';
import { Fixture } from '../support/fixture.ts';
import { ECAM, byEcam, byPorts, ecamAddress, ones, place32 } from './support/guest.ts';
import { RegisterFunction } from './support/register-function.ts';

const HEADER = 0x0e;
const PLACE = 0xe000_0000n;

function newBridge(): PciHostBridge {
  return new PciHostBridge({ ecam: ECAM, windows: [] });
}

test('Header Type of function 0 has the multi-function bit while the device has other functions', async (t) => {
  const bridge = newBridge();
  bridge.add('00:02.0', new RegisterFunction());
  bridge.add('00:03.0', new RegisterFunction());
  const bits = async (address: string): Promise<number[]> => {
    const mechanisms = [byPorts(bridge), byEcam(bridge)];
    const reads = mechanisms.flatMap((config) => [
      config.read(address, HEADER, 1),
      config.read(address, HEADER, 2),
      config.read(address, HEADER - 2, 4).then((value) => (value >>> 16) & 0xff),
    ]);
    return [...new Set(await Promise.all(reads))];
  };
  t.deepEqual(await bits('00:02.0'), [0]);
  bridge.add('00:02.7', new RegisterFunction());
  t.deepEqual(await bits('00:02.0'), [0x80]);
  t.deepEqual(await bits('00:02.7'), [0], 'only in function 0');
  t.deepEqual(await bits('00:03.0'), [0], 'not in another device');
  t.deepEqual(await bits('00:00.0'), [0]);
  bridge.add('00:00.1', new RegisterFunction());
  t.deepEqual(await bits('00:00.0'), [0x80], 'also in the host bridge');
  bridge.remove('00:02.7');
  t.deepEqual(await bits('00:02.0'), [0]);
});

test('the multi-function bit changes no other byte of a read', async (t) => {
  const bridge = newBridge();
  const func = new RegisterFunction();
  func.config.fill(0x11);
  bridge.add('00:02.0', func);
  bridge.add('00:02.1', new RegisterFunction());
  const expected = func.config.slice();
  expected[HEADER] = 0x91;
  for (const length of [1, 2, 4, 8, 16, 32]) {
    for (let offset = 0; offset < 0x20; offset++) {
      const read = await bridge.mmioRead(ecamAddress('00:02.0') + BigInt(offset), length);
      t.deepEqual(read, expected.slice(offset, offset + length), `${offset}+${length}`);
    }
  }
});

test('a function other than 0 is found by its address, also without function 0', async (t) => {
  const bridge = newBridge();
  bridge.add('00:02.3', new RegisterFunction(0x1000, 0x3333));
  const config = byPorts(bridge);
  t.is(await config.read('00:02.3', 0, 4), 0x3333_1234);
  t.is(await config.read('00:02.0', 0, 4), 0xffff_ffff);
  t.is(await config.read('00:02.0', HEADER, 1), 0xff);
});

test('adds and removes functions while the guest runs', async (t) => {
  const fixture = await Fixture.create(t);
  const bridge = new PciHostBridge({ memory: fixture.memory, ecam: ECAM, windows: [] });
  const config = byEcam(bridge);
  const first = await fixture.assign();
  t.is(await config.read('00:05.0', 0, 2), 0xffff);
  bridge.add('00:05.0', first);
  t.is(await config.read('00:05.0', 0, 2), 0x1234);
  await place32(config, '00:05.0', 4, PLACE);
  await bridge.mmioWrite(PLACE, Uint8Array.of(7));
  t.deepEqual([...(await bridge.mmioRead(PLACE, 1))], [7]);
  t.deepEqual([...bridge.functions.keys()], ['00:00.0', '00:05.0']);
  t.is(bridge.functions.get('00:05.0'), first);

  bridge.remove('00:05.0');
  bridge.remove('00:05.0');
  t.is(await config.read('00:05.0', 0, 2), 0xffff);
  t.deepEqual(await bridge.mmioRead(PLACE, 4), ones(4));
  await bridge.mmioWrite(PLACE, Uint8Array.of(8));
  t.deepEqual([...first.mmioRead(PLACE, 1)], [7], 'the device is as before');

  // It still decodes the address, so the bridge finds it there at once, at another address of the bus.
  bridge.add('01:00.0', first);
  t.deepEqual([...(await bridge.mmioRead(PLACE, 1))], [7]);
  bridge.remove('01:00.0');
  await first.close();
  const second = await fixture.assign();
  bridge.add('00:05.0', second);
  t.is(await config.read('00:05.0', 4, 2), 0, 'the next device is in its power-on state');
});

test('a replacement of the host bridge has its address', async (t) => {
  const bridge = newBridge();
  bridge.remove('00:00.0');
  const config = byPorts(bridge);
  t.is(await config.read('00:00.0', 0, 4), 0xffff_ffff);
  bridge.add('00:00.0', new RegisterFunction(0x1000, 0x29c0));
  t.is(await config.read('00:00.0', 0, 4), 0x29c0_1234);
});

test('a device that is closed before its removal is an error of the VMM', async (t) => {
  const fixture = await Fixture.create(t);
  const bridge = new PciHostBridge({ memory: fixture.memory, ecam: ECAM, windows: [] });
  const device = await fixture.assign();
  bridge.add('00:05.0', device);
  await place32(byPorts(bridge), '00:05.0', 4, PLACE);
  await device.close();
  throwsCode(t, () => bridge.mmioRead(ecamAddress('00:05.0'), 4), 'ERR_CLOSED');
  await rejectsCode(t, Promise.resolve(bridge.mmioWrite(ecamAddress('00:05.0') + 4n, ones(2))), 'ERR_CLOSED');
  t.deepEqual(await bridge.mmioRead(PLACE, 4), ones(4), 'its BARs are gone');
});

test('rejects addresses that a function cannot have, and names the format', (t) => {
  const bridge = newBridge();
  const func = new RegisterFunction();
  for (const address of ['', '00:01', '00:20.0', '00:01.8', '0000:00:01.0', '0:1.0', 'x', ' 00:01.0', '00:01.0 ']) {
    const { message } = throwsCode(t, () => bridge.add(address, func), 'ERR_INVALID_ARGUMENT', address);
    t.regex(message, /^the address of a function in a guest is bus, device and function, such as 00:01\.0, not /);
    throwsCode(t, () => bridge.remove(address), 'ERR_INVALID_ARGUMENT', address);
  }
  const { message } = throwsCode(t, () => bridge.add('02:00.0', func), 'ERR_OUT_OF_RANGE');
  t.regex(message, /^02:00\.0: adding a function failed: ECAM has 2 bus\(es\)/);
  const whole = new PciHostBridge({ windows: [] });
  whole.add('FF:1f.7', func);
  t.deepEqual([...whole.functions.keys()], ['00:00.0', 'ff:1f.7']);
});

test('rejects a second function at an address, and a second address of a function', (t) => {
  const bridge = newBridge();
  const func = new RegisterFunction();
  bridge.add('00:01.0', func);
  const taken = throwsCode(t, () => bridge.add('00:01.0', new RegisterFunction()), 'ERR_OVERLAP');
  t.is(taken.message, '00:01.0: adding a function failed: the address has a function. Remove that first.');
  const twice = throwsCode(t, () => bridge.add('00:02.0', func), 'ERR_DEVICE_IN_USE');
  t.regex(twice.message, /^00:02\.0: .* the function is at 00:01\.0 already/);
  t.deepEqual([...bridge.functions.keys()], ['00:00.0', '00:01.0']);
});

test('rejects a device whose BARs are in another guest memory', async (t) => {
  const fixture = await Fixture.create(t);
  await using other = await GuestMemory.create();
  const bridge = new PciHostBridge({ memory: other, windows: [] });
  const device = await fixture.assign();
  const { message } = throwsCode(t, () => bridge.add('00:01.0', device), 'ERR_INVALID_ARGUMENT');
  t.regex(message, /its BARs are in another guest memory than that of the bridge/);
  t.deepEqual([...bridge.functions.keys()], ['00:00.0']);
});

test('rejects objects that lack a method', (t) => {
  const bridge = newBridge();
  const configRead = (): number => 0;
  const configWrite = (): void => {};
  const mmioRead = (): Uint8Array => new Uint8Array(4);
  for (const [func, missing] of [
    [{}, 'configRead'],
    [{ configRead }, 'configWrite'],
    [{ configRead, configWrite, decodedBars: [] }, 'mmioRead'],
    [{ configRead, configWrite, decodedBars: [], mmioRead }, 'mmioWrite'],
    [{ configRead, configWrite, watchBars: 5 }, 'watchBars'],
  ] as const) {
    const { message } = throwsCode(t, () => bridge.add('00:01.0', func as never), 'ERR_INVALID_ARGUMENT');
    t.regex(message, new RegExp(`^00:01\\.0: adding a function failed: its ${missing} is not a method`));
  }
  bridge.add('00:01.0', { configRead, configWrite });
});

test('rejects invalid results of a function, and names the function', async (t) => {
  const bridge = newBridge();
  const valid = { configRead: () => 0, configWrite: () => {}, mmioRead: () => new Uint8Array(4), mmioWrite: () => {} };
  const BARS = [AddressRange.of(PLACE, 16n)];
  const config = ecamAddress('00:01.0');
  const cases: readonly [Record<string, unknown>, () => unknown, RegExp][] = [
    [{ configRead: () => 2 ** 32 }, () => bridge.mmioRead(config, 4), /a config read at 0x0 returned the number 429/],
    [{ configRead: () => 256 }, () => bridge.mmioRead(config + 5n, 1), /at 0x5 returned .* unsigned number of 1 bytes/],
    [{ configRead: () => -1 }, () => bridge.mmioRead(config, 4), /returned the number -1/],
    [{ configRead: () => 1n }, () => bridge.mmioRead(config, 4), /returned the bigint 1n/],
    [{ configWrite: () => 5 }, () => bridge.mmioWrite(config, ones(4)), /Return a promise or nothing/],
    [{ decodedBars: BARS, mmioRead: () => 'x' }, () => bridge.mmioRead(PLACE, 4), /Return a Uint8Array of 4 bytes/],
    [{ decodedBars: BARS }, () => bridge.mmioRead(PLACE, 2), /Return a Uint8Array of 2 bytes/],
    [{ decodedBars: [1] }, () => undefined, /one of its decodedBars is the number 1/],
    [{ watchBars: () => 1 }, () => undefined, /Return an object with the method remove/],
  ];
  for (const [part, access, message] of cases) {
    const use = async (): Promise<void> => {
      bridge.add('00:01.0', { ...valid, ...part } as GuestPciFunction);
      await access();
    };
    const error = await rejectsCode(t, use(), 'ERR_INVALID_ARGUMENT');
    t.regex(error.message, /^the function at 00:01\.0 is invalid: /);
    t.regex(error.message, message);
    bridge.remove('00:01.0');
  }
});

test('a function that cannot be added has no BARs on the bus', async (t) => {
  const bridge = newBridge();
  const func = new RegisterFunction();
  func.configWrite(0x10, 4, Number(PLACE));
  func.configWrite(4, 2, 2);
  const watchBars = (changed: () => void): void => changed();
  throwsCode(t, () => bridge.add('00:01.0', Object.assign(func, { watchBars }) as never), 'ERR_INVALID_ARGUMENT');
  t.deepEqual(await bridge.mmioRead(PLACE, 4), ones(4));
  t.deepEqual([...bridge.functions.keys()], ['00:00.0']);
});

/** A function at {@link PLACE} with a BAR of 16 bytes. */
function placedFunction(): RegisterFunction {
  const func = new RegisterFunction();
  func.configWrite(0x10, 4, Number(PLACE));
  func.configWrite(4, 2, 2);
  return func;
}

test('a function whose watch cannot be ended is removed from everything, and can be added again', async (t) => {
  const bridge = newBridge();
  const removed: string[] = [];
  bridge.watchFunctions({ added: () => {}, removed: (address) => void removed.push(address) });
  const reason = new Error('it is still in use');
  let report = (): void => {};
  const watchBars = (changed: () => void) => {
    report = changed;
    return {
      remove: () => {
        throw reason;
      },
    };
  };
  const func = Object.assign(placedFunction(), { watchBars });
  bridge.add('00:01.0', func);
  t.deepEqual(await bridge.mmioRead(PLACE, 4), new Uint8Array(4));
  t.is(
    t.throws(() => bridge.remove('00:01.0')),
    reason,
  );
  t.deepEqual(removed, ['00:01.0']);
  t.deepEqual([...bridge.functions.keys()], ['00:00.0']);
  report();
  t.deepEqual(await bridge.mmioRead(PLACE, 4), ones(4));
  bridge.remove('00:01.0');
  bridge.add('00:01.0', func);
  t.deepEqual(await bridge.mmioRead(PLACE, 4), new Uint8Array(4));
});

test('a function is removed although its virtual machine fails to disconnect it, or to connect it', (t) => {
  const bridge = newBridge();
  let ended = 0;
  const func = Object.assign(placedFunction(), { watchBars: () => ({ remove: () => ended++ }) });
  const fail = (text: string) => (): never => {
    throw new Error(text);
  };
  const watcher = { added: () => {}, removed: fail('no disconnection') };
  bridge.watchFunctions(watcher);
  bridge.add('00:01.0', func);
  t.throws(() => bridge.remove('00:01.0'), { message: 'no disconnection' });
  watcher.added = fail('no connection');
  t.throws(() => bridge.add('00:01.0', func), { message: 'no connection' });
  t.is(ended, 2);
  t.deepEqual([...bridge.functions.keys()], ['00:00.0']);
});

test('a function whose BARs become invalid while it is added is not watched', async (t) => {
  const bridge = newBridge();
  let [reads, ended] = [0, 0];
  let report = (): void => {};
  const func = {
    configRead: () => 0,
    configWrite: () => undefined,
    mmioRead: (_: bigint, length: number) => new Uint8Array(length),
    mmioWrite: () => undefined,
    get decodedBars() {
      if (reads++ === 2) throw new Error('not yet');
      return [AddressRange.of(PLACE, 16n)];
    },
    watchBars: (changed: () => void) => {
      report = changed;
      return { remove: () => ended++ };
    },
  };
  throwsCode(t, () => bridge.add('00:01.0', func), 'ERR_INVALID_ARGUMENT');
  t.is(ended, 1);
  report();
  t.deepEqual(await bridge.mmioRead(PLACE, 4), ones(4));
  bridge.add('00:01.0', func);
  t.deepEqual(await bridge.mmioRead(PLACE, 4), new Uint8Array(4));
});

test('a registration removes its own function only', (t) => {
  const bridge = newBridge();
  const first = bridge.add('00:01.0', new RegisterFunction());
  t.is(inspect(first), 'Registration { active }');
  bridge.remove('00:01.0');
  bridge.add('00:01.0', new RegisterFunction());
  first.remove();
  t.true(bridge.functions.has('00:01.0'));
  {
    using _second = bridge.add('00:02.0', new RegisterFunction());
    t.true(bridge.functions.has('00:02.0'));
  }
  t.false(bridge.functions.has('00:02.0'));
  t.is(inspect(first), 'Registration { removed }');
});

test('an exception of a function reaches the caller as it is', async (t) => {
  const bridge = newBridge();
  const fail = (): never => {
    throw new RangeError('no such register');
  };
  const func = { configRead: fail, configWrite: fail, decodedBars: [AddressRange.of(PLACE, 16n)] };
  bridge.add('00:01.0', { ...func, mmioRead: fail, mmioWrite: fail });
  const expected = { instanceOf: RangeError, message: 'no such register' };
  t.throws(() => bridge.mmioRead(ecamAddress('00:01.0'), 4), expected);
  t.throws(() => bridge.mmioWrite(ecamAddress('00:01.0'), ones(4)), expected);
  t.throws(() => bridge.mmioRead(PLACE, 4), expected);
  t.throws(() => bridge.mmioWrite(PLACE, ones(4)), expected);
});
