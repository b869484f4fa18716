// The BAR move before the first guest of a process, which has no visible effect. The first guest memory of this process
// is created here.
import test from 'ava';
import { subscribe } from 'node:diagnostics_channel';
import { GuestMemory, MemoryFile } from '../../ts/index.ts';

test('publishes nothing, and uses no id of a guest memory', async (t) => {
  const events: { readonly memory: number }[] = [];
  for (const name of ['dma.map', 'dma.unmap', 'memory.change', 'memory.settled']) {
    subscribe(`peerdma:${name}`, (event) => events.push(event as { readonly memory: number }));
  }
  const file = MemoryFile.create(0x1000n);
  const made = GuestMemory.create({ ram: [{ start: 0n, length: 0x1000n, file }] });
  file.close(); // the call already has the file
  const memory = await made;
  t.deepEqual([...new Set(events.map((event) => event.memory))], [memory.id]);
  t.is(memory.id, 0);
  t.is(memory.inspect().regions.length, 1);
  await memory.close();
});
