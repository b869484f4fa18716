/**
 * The back end that `auto` chooses on this kernel, and the reason that it reports.
 */
import { existsSync } from 'node:fs';
import { GuestMemory, PeerDmaError, VfioContainerManager } from '../../ts/index.ts';
import { testWith } from './support/devices.ts';
import { openVfioFiles } from './support/open-files.ts';

const IOMMUFD = existsSync('/dev/iommu');

testWith({ any: 2 }, 'auto chooses the best available back end and reports why', async (t, { any }) => {
  await using memory = await GuestMemory.create();
  await using manager = new VfioContainerManager(memory);
  t.like(manager.inspect(), { containers: [] });
  t.is(manager.inspect().backend, undefined, 'the first device decides');
  for (const bdf of any.slice(0, 2)) await manager.open(bdf);
  const { backend, reason, containers } = manager.inspect();
  t.is(backend, IOMMUFD ? 'iommufd' : 'type1');
  t.regex(reason, IOMMUFD ? /dma-bufs/ : /no \/dev\/iommu.*Linux 6\.2/);
  t.deepEqual(
    containers.map((container) => [container.backend, container.groups.length]),
    [[backend, 2]],
  );
  JSON.stringify(manager.inspect());
});

testWith({ any: 1 }, 'a requested back end is used, or rejected with an error', async (t, { any: [bdf = ''] }) => {
  await using memory = await GuestMemory.create();
  for (const backend of ['type1', 'iommufd'] as const) {
    await using manager = new VfioContainerManager(memory, { backend });
    t.regex(manager.inspect().reason, new RegExp(`'${backend}' was requested`));
    if (backend === 'type1' || IOMMUFD) {
      await manager.open(bdf);
      t.is(manager.inspect().backend, backend);
    } else {
      const error = await t.throwsAsync(manager.open(bdf), { instanceOf: PeerDmaError });
      t.is(error?.code, 'ERR_IOMMUFD_UNAVAILABLE');
      t.is(error?.errno, 'ENOENT');
      t.regex(error?.message ?? '', /Linux 6\.2/);
    }
  }
  t.deepEqual(openVfioFiles(), []);
});

if (IOMMUFD) {
  testWith({ any: 1 }, 'a device is open in one back end at a time', async (t, { any: [bdf = ''] }) => {
    await using memory = await GuestMemory.create();
    for (const [holder, other] of [
      ['type1', 'iommufd'],
      ['iommufd', 'type1'],
    ] as const) {
      await using holding = new VfioContainerManager(memory, { backend: holder });
      await holding.open(bdf);
      await using refused = new VfioContainerManager(memory, { backend: other });
      await t.throwsAsync(refused.open(bdf), { instanceOf: PeerDmaError, code: 'ERR_GROUP_BUSY' });
      t.deepEqual(refused.inspect().containers, []);
    }
    t.deepEqual(openVfioFiles(), []);
  });
}
