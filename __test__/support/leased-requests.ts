/**
 * Requests with leased host memory, for tests that call a target directly.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, type DmaMapRequest, GuestMemory, MemoryFile } from '../../ts/index.ts';
import { RecordingTarget } from './recording-target.ts';

export type RequestOptions = Partial<Pick<DmaMapRequest, 'writable' | 'kind' | 'name'>>;

/** Makes complete requests for any IOVA range: each has its own memory, filled with zeros. */
export async function requests(
  t: ExecutionContext,
): Promise<(range: AddressRange, options?: RequestOptions) => Promise<DmaMapRequest>> {
  const memory = await GuestMemory.create({ addressWidth: 36 });
  t.teardown(() => memory.close());
  const leasing = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(leasing);
  let next = 0n;
  return async (range, options = {}) => {
    const name = options.name ?? 'leased';
    const page = 4096n;
    const length = ((range.length + page - 1n) / page) * page;
    const file = MemoryFile.create(length, { name });
    t.teardown(() => file.close());
    const bar = memory.newDeviceMemory({ name, length });
    await bar.addMapping({ range: AddressRange.of(0n, length), backing: { file, offset: 0n } });
    await bar.mapToGuest(next);
    const leased = leasing.held().find((held) => held.range.start === next);
    if (leased === undefined) throw new Error('the target has just mapped it');
    next += length;
    return { ...leased, writable: options.writable ?? true, kind: options.kind ?? 'ram', range };
  };
}
