/**
 * A file in a reservation of its own, with a lease on all of it.
 */
import { NativeMemoryFile, NativeReservation } from '#native';

export interface LentFile {
  readonly file: NativeMemoryFile;
  readonly reservation: NativeReservation;
  readonly lease: number;
}

export function lentFile(
  length: bigint,
  file: NativeMemoryFile = NativeMemoryFile.create(length, 'lent', 0),
): LentFile {
  const reservation = new NativeReservation(36);
  reservation.mapFile(0n, length, file, 0n, true, false);
  return { file, reservation, lease: reservation.lease(BigUint64Array.of(0n, length)) };
}
