// Constructors that only this package calls.
import test from 'ava';
import { AddressRange, PeerDmaError } from '../../ts/index.ts';
import { exported, publicSurface } from './surface.ts';

type Constructor = new (...args: unknown[]) => object;

const FACTORIES: Readonly<Record<string, string>> = {
  AddressRange: 'AddressRange.of()',
  AssignedDevice: 'AssignedDevice.create()',
  DmaBuffer: 'DmaBuffer.allocate()',
  EventFd: 'EventFd.create()',
  GuestMemory: 'GuestMemory.create()',
  MemoryFile: 'MemoryFile.create()',
  UnixSocket: 'UnixSocket.connect()',
  VhostUserTarget: 'VhostUserTarget.connect()',
  VirtualMachine: 'VirtualMachine.create()',
};

const classes = Object.entries(exported).filter(([, value]) => String(value).startsWith('class '));

for (const [name, factory] of Object.entries(FACTORIES)) {
  test(`the constructor of ${name} throws a PeerDmaError that names ${factory}`, (t) => {
    const made = Reflect.get(exported, name) as Constructor;
    class Heir extends made {}
    const expected = {
      instanceOf: PeerDmaError,
      code: 'ERR_INVALID_ARGUMENT',
      message: `${name}: construction failed: its constructor is not public. Call ${factory}.`,
    };
    for (const args of [[], [0n, 5n], [Symbol('peerdma'), 0n, 5n], [{}, 'name']]) {
      t.throws(() => new made(...args), expected);
      t.throws(() => new Heir(...args), expected);
    }
  });
}

test('each exported class has a public constructor, or one that names a factory', async (t) => {
  const withArguments = await publicSurface();
  const others = classes.map(([name]) => name).filter((name) => !withArguments.includes(`new ${name}`));
  // `new SimulatedBus()` takes nothing.
  t.deepEqual(others.filter((name) => name !== 'SimulatedBus').sort(), Object.keys(FACTORIES).sort());
});

test('an address range stays as AddressRange.of() has checked it', (t) => {
  const range = AddressRange.of(0x1000n, 0x1000n);
  for (const name of ['start', 'end', 'length']) {
    t.throws(() => Object.assign(range, { [name]: -1n }), { instanceOf: TypeError });
  }
  t.is(String(range), '0x1000..0x2000');
});
