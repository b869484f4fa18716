/**
 * Reads and writes the config space of a device.
 */
import { PeerDmaError } from '../errors.ts';
import type { BackEnd } from './back-end.ts';
import { refused, unsupported } from './errors.ts';
import { CONFIG_PREFIX, configSpace } from './payloads.ts';
import { PROTOCOL } from './requests.ts';
import type { Session } from './session.ts';

/** Bytes of config space in a message (`VHOST_USER_MAX_CONFIG_SIZE` of QEMU). */
const MAX_END = 256;

/**
 * Reads from the start on: `libvhost-user` returns the first bytes for every offset.
 *
 * @throws {PeerDmaError} `ERR_UNSUPPORTED`, `ERR_OUT_OF_RANGE`, `ERR_REQUEST_REFUSED`; as {@link Session.ask}
 * @internal
 */
export async function readConfigSpace(backEnd: BackEnd, offset: number, length: number): Promise<Uint8Array> {
  const session = requireConfig(backEnd, offset, length);
  const end = offset + length;
  if (length === 0) return new Uint8Array();
  const message = { request: 'GET_CONFIG', payload: configSpace(0, new Uint8Array(end)) } as const;
  const size = CONFIG_PREFIX + end;
  // An error has no payload, or with the crate `vhost` of rust-vmm no bytes of config space.
  const { payload } = await session.ask(message, size, { errorSizes: [0, CONFIG_PREFIX] });
  if (payload.length < size) throw refused(backEnd.name, 'GET_CONFIG');
  return payload.slice(CONFIG_PREFIX + offset);
}

/** @throws {PeerDmaError} as {@link readConfigSpace} @internal */
export async function writeConfigSpace(backEnd: BackEnd, offset: number, bytes: Uint8Array): Promise<void> {
  const session = requireConfig(backEnd, offset, bytes.length);
  if (bytes.length > 0) await session.demand([{ request: 'SET_CONFIG', payload: configSpace(offset, bytes) }]);
}

function requireConfig({ name, agreement, link }: BackEnd, offset: number, length: number): Session {
  if ((agreement.protocol & PROTOCOL.CONFIG) === 0n) {
    throw unsupported(name, 'accessing config space', 'the protocol feature CONFIG');
  }
  if (offset + length > MAX_END) {
    const message = `${name}: ${length} bytes at ${offset} pass the end of config space, which has ${MAX_END}`;
    throw new PeerDmaError('ERR_OUT_OF_RANGE', message, { target: name });
  }
  return link.require();
}
