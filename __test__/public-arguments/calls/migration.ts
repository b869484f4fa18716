/** Calls of migrations of a VM. */
import type { ExecutionContext } from 'ava';
import { GuestMemory, startMigration, startRestore } from '../../../ts/index.ts';
import { SimulatedDevice } from '../../../ts/testing.ts';
import { PAGE } from '../../support/pages.ts';
import { type Calls, options } from '../values.ts';

export async function migrationCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: PAGE }], addressWidth: 32 });
  const source = new SimulatedDevice({ bdf: '0000:00:01.0', migration: {} });
  const restored = new SimulatedDevice({ bdf: '0000:00:02.0', resettable: true, migration: {} });
  const from = await startMigration({ memory, devices: { nic: source } });
  const to = await startRestore({ memory, devices: { nic: restored } });
  t.teardown(async () => {
    await to.close();
    await from.close();
    await memory.close();
  });
  const start = async (given: Parameters<typeof startMigration>[0]): Promise<void> => {
    await using _ = await startMigration(given);
  };
  const restore = async (given: Parameters<typeof startRestore>[0]): Promise<void> => {
    await using _ = await startRestore(given);
  };
  const chunk = { kind: 'ram', gpa: 0n, bytes: new Uint8Array(1) } as const;
  return {
    startMigration: {
      ...options({ memory, devices: {}, machine: undefined, iommu: undefined }, start),
      'one of devices': (value) => start({ memory, devices: { nic: value } }),
    },
    startRestore: {
      ...options({ memory, devices: {} }, restore),
      'one of devices': (value) => restore({ memory, devices: { nic: value } }),
    },
    'MigrationSource#markDirty': { range: (value) => from.markDirty(value) },
    'MigrationTarget#write': {
      ...options({ ...chunk }, (given) => to.write(given)),
      device: (value) => to.write({ kind: 'device', device: value, bytes: new Uint8Array() }),
    },
  };
}
