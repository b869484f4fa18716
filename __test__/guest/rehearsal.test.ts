// The move of a BAR that a process makes before its first guest: nobody notices it. The first guest memory of this
// process is made here.
import test from 'ava';
import { subscribe } from 'node:diagnostics_channel';
import { GuestMemory } from '../../ts/index.ts';
import { spacesShowing } from '../../ts/guest/spaces.ts';

test('publishes nothing, and takes no number of a guest memory', async (t) => {
  const events: { readonly memory: number }[] = [];
  for (const name of ['dma.map', 'dma.unmap', 'memory.change', 'memory.settled']) {
    subscribe(`peerdma:${name}`, (event) => events.push(event as { readonly memory: number }));
  }
  const memory = await GuestMemory.create();
  t.deepEqual([...new Set(events.map((event) => event.memory))], [memory.id]);
  t.is(memory.id, 0);
  t.deepEqual(memory.inspect().regions, []);
  t.deepEqual(spacesShowing([]), []);
  await memory.close();
});
