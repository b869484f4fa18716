/**
 * What a VFIO device's interrupts ask of the kernel, in which order, and what is left when it refuses.
 */
import test, { type ExecutionContext } from 'ava';
import type { NativeVfioDevice } from '#native';
import { EventFd, PeerDmaError } from '../../../ts/index.ts';
import { VfioInterrupts } from '../../../ts/vfio/vfio-interrupts.ts';
import { throwsCode } from '../../support/errors.ts';

/** A device that writes down what it is asked for. */
class Asked {
  readonly calls: string[] = [];
  /** Whether vectors can be added while a kind is connected. */
  grows = true;
  /** The call that is refused. */
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

test('of MSI-X the kernel is asked for the first vector and for those with an eventfd', (t) => {
  for (const [wanted, calls] of [
    ['xx', ['0: xx']],
    ['--------', ['0: -']],
    ['-x-xx--x', ['0: -x', '3: xx', '7: x']],
    ['x------', ['0: x']],
  ] as const) {
    const asked = new Asked();
    asked.interrupts.connect('msix', events(t, wanted));
    t.deepEqual(asked.take(), calls);
    const [another] = events(t, 'x');
    asked.interrupts.reconnect('msix', wanted.length - 1, another);
    t.deepEqual(asked.take(), [`${wanted.length - 1}: x`]);
  }
});

test('2,048 vectors of MSI-X are connected by one call of the kernel', (t) => {
  const [event] = events(t, 'x');
  for (const grows of [true, false]) {
    const asked = new Asked();
    asked.grows = grows;
    asked.interrupts.connect(
      'msix',
      Array.from({ length: 2048 }, () => event),
    );
    t.deepEqual(asked.take(), [`0: ${'x'.repeat(2048)}`]);
  }
});

test('where vectors can not be added it is asked for all of them at once', (t) => {
  const asked = new Asked();
  asked.interrupts.connect('msi', events(t, '-x-x'));
  asked.interrupts.disconnect('msi');
  asked.grows = false;
  asked.interrupts.connect('msix', events(t, '-x--x--'));
  t.deepEqual(asked.take(), ['0: -x-x', 'disconnect', '0: -x--x--']);
});

test('connecting that is refused half-way leaves nothing connected', (t) => {
  for (const [kind, wanted, refused, calls] of [
    ['msix', '-x-x-x', '3: x', ['0: -x', '3: x', 'disconnect']],
    ['msix', '-x-x-x', '0: -x', ['0: -x']],
    ['intx', 'x', 'mask', ['0: x', 'mask', 'disconnect']],
    ['intx', 'x', 'unmask', ['0: x', 'mask', 'unmask', 'disconnect']],
  ] as const) {
    const asked = new Asked();
    asked.refused = refused;
    throwsCode(t, () => asked.interrupts.connect(kind, events(t, wanted)), 'ERR_INTERRUPT_SETUP', refused);
    t.deepEqual(asked.take(), calls);
    asked.refused = undefined;
    asked.interrupts.connect('msi', events(t, 'x'));
    t.deepEqual(asked.take(), ['0: x']);
  }
});

test('a pin is looked at when it is connected', (t) => {
  const asked = new Asked();
  asked.interrupts.connect('intx', events(t, 'x'));
  t.deepEqual(asked.take(), ['0: x', 'mask', 'unmask']);
});
