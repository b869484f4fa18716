// Guest memory stays out of the child processes of a VMM: fork copies no page table of it, and no page that is pinned.
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { GuestMemory } from '../../ts/index.ts';

const RAM = 256 << 20;

test('starts a child process without the private memory of the guest', async (t) => {
  const ram = { start: 0n, length: BigInt(RAM), private: true, prefault: true };
  await using memory = await GuestMemory.create({ ram: [ram] });
  const resident = process.memoryUsage.rss();
  t.true(resident > RAM, 'all of it is there');
  memory.write(0n, Uint8Array.of(1));
  // The most that the child ever had in memory, before it ran the program too, when it was a copy of this process.
  const { stdout } = spawnSync(process.execPath, ['-p', 'process.resourceUsage().maxRSS'], { encoding: 'utf8' });
  const most = Number(stdout) * 1024;
  t.true(most > 0 && most < resident - RAM / 2, `the child had ${most} bytes of the ${resident} that are here`);
});
