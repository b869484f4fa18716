/**
 * The queue of a serial port's input.
 */
import test from 'ava';
import fc from 'fast-check';
import { ByteQueue } from '../../examples/vmm/devices/byte-queue.ts';

test('bytes leave in the order of their arrival, whatever the lengths are', (t) => {
  const call = fc.oneof(
    fc.record({ push: fc.uint8Array({ maxLength: 20 }) }),
    fc.record({ take: fc.nat({ max: 20 }) }),
  );
  fc.assert(
    fc.property(fc.array(call), (calls) => {
      const [queue, expected] = [new ByteQueue(), [] as number[]];
      for (const one of calls) {
        if ('push' in one) {
          queue.push(one.push);
          expected.push(...one.push);
        } else {
          t.deepEqual(queue.take(one.take), expected.splice(0, one.take));
        }
        t.is(queue.length, expected.length);
      }
    }),
  );
});
