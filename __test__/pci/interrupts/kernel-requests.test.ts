/** The kernel requests for a VFIO device's interrupts, their order, and the state after a failure. */
import test, { type ExecutionContext } from 'ava';
import type { NativeVfioDevice } from '#native';
import { EventFd, PeerDmaError } from '../../../ts/index.ts';
import { VfioInterrupts } from '../../../ts/vfio/vfio-interrupts.ts';
import { throwsCode } from '../../support/errors.ts';

/** A device that records its calls. */
class RecordingDevice {
  readonly calls: string[] = [];
  /** Whether vectors can be added while a kind is connected. */
  grows = true;
  /** The call that fails. */
  refused: string | undefined;

  readonly native = {
    irqCount: () => 2048,
    irqGrows: () => this.grows,
    connectIrqs: (_: number, start: number, events: readonly unknown[]) =>
      this.#call(`${start}: ${events.map((event) => (event === undefined ? '-' : 'x')).join('')}`),
    disconnectIrqs: () => this.#call('disconnect'),
    maskIntx: () => this.#call('mask'),
    unmaskIntx: () => this.#call('unmask'),
  } as unknown as NativeVfioDevice;

  readonly interrupts = new VfioInterrupts('0000:03:00.0', this.native);

  take(): string[] {
    return this.calls.splice(0);
  }

  #call(call: string): void {
    this.calls.push(call);
    if (call === this.refused) throw new PeerDmaError('ERR_INTERRUPT_SETUP', `refused: ${call}`);
  }
}

/** An eventfd for each `x`. */
function events(t: ExecutionContext, wanted: string): (EventFd | undefined)[] {
  return [...wanted].map((letter) => {
    if (letter !== 'x') return undefined;
    const event = EventFd.create();
    t.teardown(() => event.close());
    return event;
  });
}

test('requests the first MSI-X vector and those with an eventfd from the kernel', (t) => {
  for (const [wanted, calls] of [
    ['xx', ['0: xx']],
    ['--------', ['0: -']],
    ['-x-xx--x', ['0: -x', '3: xx', '7: x']],
    ['x------', ['0: x']],
  ] as const) {
    const device = new RecordingDevice();
    device.interrupts.connect('msix', events(t, wanted));
    t.deepEqual(device.take(), calls);
    const [another] = events(t, 'x');
    device.interrupts.reconnect('msix', wanted.length - 1, another);
    t.deepEqual(device.take(), [`${wanted.length - 1}: x`]);
  }
});

test('connects 2,048 MSI-X vectors in one call of the kernel', (t) => {
  const [event] = events(t, 'x');
  for (const grows of [true, false]) {
    const device = new RecordingDevice();
    device.grows = grows;
    device.interrupts.connect(
      'msix',
      Array.from({ length: 2048 }, () => event),
    );
    t.deepEqual(device.take(), [`0: ${'x'.repeat(2048)}`]);
  }
});

test('requests all vectors at once if the kernel cannot add vectors', (t) => {
  const device = new RecordingDevice();
  device.interrupts.connect('msi', events(t, '-x-x'));
  device.interrupts.disconnect('msi');
  device.grows = false;
  device.interrupts.connect('msix', events(t, '-x--x--'));
  t.deepEqual(device.take(), ['0: -x-x', 'disconnect', '0: -x--x--']);
});

test('leaves nothing connected when connecting fails halfway', (t) => {
  for (const [kind, wanted, refused, calls] of [
    ['msix', '-x-x-x', '3: x', ['0: -x', '3: x', 'disconnect']],
    ['msix', '-x-x-x', '0: -x', ['0: -x']],
    ['intx', 'x', 'mask', ['0: x', 'mask', 'disconnect']],
    ['intx', 'x', 'unmask', ['0: x', 'mask', 'unmask', 'disconnect']],
  ] as const) {
    const device = new RecordingDevice();
    device.refused = refused;
    throwsCode(t, () => device.interrupts.connect(kind, events(t, wanted)), 'ERR_INTERRUPT_SETUP', refused);
    t.deepEqual(device.take(), calls);
    device.refused = undefined;
    device.interrupts.connect('msi', events(t, 'x'));
    t.deepEqual(device.take(), ['0: x']);
  }
});

test('checks a pin when it is connected', (t) => {
  const device = new RecordingDevice();
  device.interrupts.connect('intx', events(t, 'x'));
  t.deepEqual(device.take(), ['0: x', 'mask', 'unmask']);
});
