/**
 * The lines of the pins of PCI devices. `__test__/vfio/kvm/interrupts.test.ts` signals one.
 */
import test from 'ava';
import { lineOfPin } from '../../ts/kvm.ts';
import { throwsCode } from '../support/errors.ts';

test('the pins of neighbours are on different lines', (t) => {
  const lines = [0, 1, 2, 3, 31].map((device) => [1, 2, 3, 4].map((pin) => lineOfPin(device, pin)));
  t.deepEqual(lines, [
    [16, 17, 18, 19],
    [17, 18, 19, 16],
    [18, 19, 16, 17],
    [19, 16, 17, 18],
    [19, 16, 17, 18],
  ]);
});

test('a device and a pin that no bus has are rejected', (t) => {
  const { message } = throwsCode(t, () => lineOfPin(32, 1), 'ERR_OUT_OF_RANGE');
  t.is(message, '"device" is 0 to 31, not 32');
  for (const pin of [0, 5]) throwsCode(t, () => lineOfPin(0, pin), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => lineOfPin(-1, 1), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => lineOfPin(0, 1.5), 'ERR_INVALID_ARGUMENT');
});
