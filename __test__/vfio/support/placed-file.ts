/**
 * A file in a reservation of its own.
 */
import { NativeMemoryFile, NativeReservation } from '#native';

export interface PlacedFile {
  readonly file: NativeMemoryFile;
  readonly reservation: NativeReservation;
}

/** All of the file is at the start of the reservation. */
export function placedFile(
  length: bigint,
  file: NativeMemoryFile = NativeMemoryFile.create(length, 'placed', 0),
): PlacedFile {
  const reservation = new NativeReservation(36);
  reservation.mapFile(0n, length, file, 0n, true, false);
  return { file, reservation };
}
