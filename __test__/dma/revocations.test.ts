// The revoked mappings of a device with very many mappings.
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import { Revocations } from '../../ts/dma/revocations.ts';
import type { SubMapping } from '../../ts/dma/sub-mapping.ts';
import { fileMemoryOf } from '../../ts/memory/memory-file.ts';
import { taggedFile } from '../support/pages.ts';

/** More than a function takes as arguments. */
const MANY = 300_000;

test('checks every mapping of a device that has revoked mappings', (t) => {
  const file = fileMemoryOf(taggedFile(t, 'BAR', 1, 0));
  const device = { accessible: true, revocations: 0 };
  file.device = device;
  const revocations = new Revocations();
  for (let page = 0; page < MANY; page++) {
    const range = AddressRange.of(BigInt(page) * 4096n, 4096n);
    revocations.add({ range, memory: { file } } as unknown as SubMapping);
  }
  let asked = 0;
  const ask = () => {
    asked++;
    return { error: undefined, known: true };
  };
  revocations.update(ask);
  t.is(asked, MANY);
  revocations.update(ask);
  t.is(asked, MANY);
  device.revocations++;
  revocations.update(ask);
  t.is(asked, 2 * MANY);
});
