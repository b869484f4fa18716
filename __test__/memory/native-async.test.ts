/**
 * Calls of the native binding while a worker thread uses the same object.
 */
import test from 'ava';
import { NativeMemoryFile, NativeReservation } from '#native';

test('leases and releases memory while it is faulted in, and rejects a close meanwhile', async (t) => {
  const length = 256n << 20n;
  const reservation = new NativeReservation(40);
  const file = NativeMemoryFile.create(length, 'busy', 0);
  reservation.mapFile(0n, length, file, 0n, true, false);
  const busy = reservation.ensureMappedAsync(BigUint64Array.of(0n, length));
  const lease = reservation.lease(BigUint64Array.of(0n, 0x1000n));
  reservation.leaseWrite(lease, 0n, Uint8Array.of(0x5a));
  t.throws(() => reservation.close(), { code: 'ERR_VA_IN_USE' });
  t.throws(() => reservation.unmap(0n, length), { code: 'ERR_VA_IN_USE' });
  reservation.releaseLeases(lease, 1);
  await busy;
  reservation.close();
  file.close();
});
