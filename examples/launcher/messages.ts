/**
 * The one message of the example: which devices are passed, and their descriptors.
 *
 * A header of 4 bytes has the length of the JSON text behind it. The descriptors come with the header.
 */
import type { OwnedDescriptor, UnixSocket } from 'peerdma';

export interface Assignment {
  readonly backend: 'type1' | 'iommufd';
  /** In the order of their descriptors. The group is a fact that a VMM without /sys cannot read. */
  readonly devices: readonly { readonly bdf: string; readonly iommuGroup: number }[];
}

/** Bytes of the header. */
const HEADER = 4;
/** The longest text that is accepted. */
const LONGEST = 65_536;

export async function sendAssignment(
  socket: UnixSocket,
  assignment: Assignment,
  descriptors: readonly number[],
): Promise<void> {
  const text = new TextEncoder().encode(JSON.stringify(assignment));
  const header = new Uint8Array(HEADER);
  new DataView(header.buffer).setUint32(0, text.length, true);
  await socket.send(header, { descriptors });
  await socket.send(text);
}

export async function receiveAssignment(
  socket: UnixSocket,
): Promise<{ assignment: Assignment; descriptors: readonly OwnedDescriptor[] }> {
  const header = await socket.receive(HEADER);
  if (header === undefined) throw new Error('the launcher has sent nothing');
  const length = new DataView(header.bytes.buffer).getUint32(0, true);
  if (length > LONGEST) throw new Error(`the launcher announces ${length} bytes`);
  const text = await socket.receive(length);
  const assignment = JSON.parse(new TextDecoder().decode(text?.bytes)) as Assignment;
  return { assignment, descriptors: header.descriptors };
}
